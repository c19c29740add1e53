"""Many generations by a User-LLM: several at once, tried again when they fail, kept on disk.

Knows nothing of what is asked; `judge` and `user_llm` do.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from models.contract.prompt import Message, Piece, Prompt
from models.engine.interface import (
    Engine,
    EngineOverloaded,
    EngineUnavailable,
    Generation,
    Sampling,
)

_FIRST_PAUSE_S = 0.5

Read = TypeVar("Read")


class CompletionError(Exception):
    """The User-LLM gave nothing that can be used, however often it was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a User-LLM is asked. The answer must match `grammar`, EBNF in xgrammar's dialect.

    sampling: with a seed, which is raised by one for every further try.
    """

    prompt: Prompt
    sampling: Sampling
    grammar: str


class CompletionCache:
    """Completions by what was asked, in a file that only grows; a line that a kill cut is dropped.

    One process at a time may write to it.
    """

    def __init__(self, path: Path | None = None) -> None:
        """path: where they are kept; None keeps them in memory alone. Raises OSError."""
        self._kept: dict[str, str] = {}
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+", encoding="utf-8")
            self._load(self._file)

    def get(self, key: str) -> str | None:
        """What was kept under `key`."""
        return self._kept.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep `text` under `key`, on disk when this returns."""
        self._kept[key] = text
        if self._file is not None:
            self._file.write(json.dumps({"key": key, "text": text}, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _load(self, file: TextIO) -> None:
        file.seek(0)
        text = file.read()
        whole, _, cut = text.rpartition("\n")
        for line in whole.split("\n"):
            if line:
                row = json.loads(line)
                self._kept[row["key"]] = row["text"]
        if cut:
            file.truncate(len(text.encode()) - len(cut.encode()))


class UserLlm:
    """Asks `engine`; what it answered before is taken from `cache`.

    concurrency: questions at once, at least 1. tries: of one question, at least 1.
    """

    def __init__(
        self,
        engine: Engine,
        cache: CompletionCache | None = None,
        concurrency: int = 16,
        tries: int = 3,
    ) -> None:
        self._engine = engine
        self._cache = CompletionCache() if cache is None else cache
        self._turns = asyncio.Semaphore(concurrency)
        self._tries = tries

    async def ask(self, question: Question, read: Callable[[str], Read]) -> Read:
        """The first answer that `read` does not refuse with a ValueError.

        Raises CompletionError after the last try, and what the engine raises but for
        EngineOverloaded and EngineUnavailable, which are tried again after a pause.
        """
        problem: Exception | None = None
        for number in range(self._tries):
            seed = (question.sampling.seed or 0) + number
            tried = replace(question, sampling=replace(question.sampling, seed=seed))
            try:
                return read(await self._complete(tried))
            except ValueError as error:
                problem = error
            except (EngineOverloaded, EngineUnavailable) as error:
                problem = error
                await asyncio.sleep(_FIRST_PAUSE_S * 2**number)
        raise CompletionError(f"{self._tries} tries gave nothing to use: {problem}") from problem

    async def _complete(self, question: Question) -> str:
        key = self._key(question)
        known = self._cache.get(key)
        if known is not None:
            return known
        generation = Generation(
            f"user-{key[:32]}", question.prompt, question.sampling, question.grammar
        )
        async with self._turns, aclosing(self._engine.generate(generation)) as chunks:
            text = "".join([chunk.text async for chunk in chunks])
        self._cache.put(key, text)
        return text

    def _key(self, question: Question) -> str:
        """A hash of all that the answer depends on."""
        asked = [
            asdict(self._engine.model),
            [(message.role, message_text(message)) for message in question.prompt.messages],
            asdict(question.sampling),
            question.grammar,
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


async def all_in_order(
    work: Sequence[Coroutine[Any, Any, Read]], progress: Callable[[int], None]
) -> list[Read]:
    """Run `work` together and return the results in its order; `progress`: how many are done.

    The first failure ends the others and is raised as it is.
    """
    done = 0

    async def counted(one: Coroutine[Any, Any, Read]) -> Read:
        nonlocal done
        result = await one
        done += 1
        progress(done)
        return result

    tasks = [asyncio.ensure_future(counted(one)) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chat(name: str, system: str, user: str) -> Prompt:
    """A prompt of two messages; `name` stands for the wording of it, version included."""
    return Prompt(
        name,
        (
            Message("system", (Piece(system, recurs=True),)),
            Message("user", (Piece(user, recurs=False),)),
        ),
    )


def message_text(message: Message) -> str:
    """What `message` says."""
    return "".join(piece.text for piece in message.pieces)
