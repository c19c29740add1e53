"""Completions of one engine, each kept on disk: what was written once is never written again.

An engine does not repeat itself to the token even with seeds, since what else is in its batch
moves its numbers. What is kept does, so a run can go on after a kill, and repeats exactly.
Mechanisms that ask for the same completion (the same prompt and seed) share it, also while it is
still being written.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from models.contract.prompt import Prompt
from models.engine.interface import (
    Engine,
    EngineUnavailable,
    Generation,
    ModelIdentity,
    Sampling,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote, and its tokens; `cached_tokens` of the prompt's came from its cache."""

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class CompletionStore:
    """Completions by key in one SQLite file; None keeps them in memory only."""

    def __init__(self, file: Path | None) -> None:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file or ":memory:", timeout=60, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS completion (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
        )

    def get(self, key: str) -> Completion | None:
        row = self._database.execute("SELECT value FROM completion WHERE key = ?", (key,))
        found = row.fetchone()
        return Completion(**json.loads(found[0])) if found else None

    def put(self, key: str, completion: Completion) -> None:
        """Keep `completion`, unless one is kept: whoever else wrote it first was believed."""
        self._database.execute(
            "INSERT OR IGNORE INTO completion VALUES (?, ?)",
            (key, json.dumps(asdict(completion), ensure_ascii=False)),
        )

    def close(self) -> None:
        self._database.close()


class Completions:
    """Asks `engine`, or remembers. For one event loop. `written`: how many the engine wrote."""

    def __init__(self, engine: Engine, store: CompletionStore) -> None:
        self.written = 0
        self._engine = engine
        self._store = store
        self._running: dict[str, asyncio.Task[Completion]] = {}
        self._numbers = count()

    @property
    def model(self) -> ModelIdentity:
        return self._engine.model

    async def complete(
        self,
        prompt: Prompt,
        sampling: Sampling,
        grammar: str | None,
        insertions: Sequence[str] = (),
    ) -> Completion:
        """Return the completion of `prompt`; raises what the engine raises.

        insertions: the markers in `grammar`, as of a Generation.
        """
        key = completion_key(self.model, prompt, sampling, grammar, insertions)
        if (kept := self._store.get(key)) is not None:
            return kept
        if (task := self._running.get(key)) is None:
            task = asyncio.create_task(self._write(key, prompt, sampling, grammar, insertions))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
        # One asker that goes away takes nothing from the others.
        return await asyncio.shield(task)

    async def _write(
        self,
        key: str,
        prompt: Prompt,
        sampling: Sampling,
        grammar: str | None,
        insertions: Sequence[str],
    ) -> Completion:
        request_id = f"{key[:12]}-{next(self._numbers)}"
        generation = Generation(request_id, prompt, sampling, grammar, insertions=insertions)
        texts: list[str] = []
        usage = Usage(0, 0, 0)
        async with aclosing(self._engine.generate(generation)) as chunks:
            async for chunk in chunks:
                texts.append(chunk.text)
                usage = chunk.usage or usage
                if chunk.finish_reason == "abort":
                    raise EngineUnavailable("The model server broke an answer off")
        completion = Completion(
            "".join(texts), usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        )
        self.written += 1
        self._store.put(key, completion)
        return completion


def completion_key(
    model: ModelIdentity,
    prompt: Prompt,
    sampling: Sampling,
    grammar: str | None,
    insertions: Sequence[str] = (),
) -> str:
    """Return a hash of all that a completion follows from."""
    messages = [
        (message.role, "".join(piece.text for piece in message.pieces))
        for message in prompt.messages
    ]
    described = [asdict(model), prompt.contract, messages, asdict(sampling), grammar]
    return hashlib.sha256(
        json.dumps([*described, *sorted(insertions)], sort_keys=True).encode()
    ).hexdigest()
