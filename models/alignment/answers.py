"""Answers of the model that is aligned, without ads: what warm-start examples are woven into."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from pathlib import Path

from models.alignment.journal import append_row, open_for_rows, read_rows
from models.contract.prompt import Layout, build_prompt
from models.engine.interface import Engine, Generation, Sampling
from models.simulation.randomness import derived_seed

OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]
"""Starts an engine, which serves for as long as the context is open."""

_AT_ONCE = 256
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


async def write_answers(
    open_engine: OpenEngine,
    queries: Sequence[str],
    path: Path,
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Append `{"query", "answer"}` to `path` for every query that it does not hold yet; no engine
    is opened where it holds all.

    sampling: its seed gives each query one of its own. `progress` is told how many are done. A
    killed run loses the answers that were being written.
    """
    answered = read_answers(path)
    progress(len(answered))
    left = [query for query in dict.fromkeys(queries) if query not in answered]
    done = len(answered)
    gate = asyncio.Semaphore(_AT_ONCE)
    with open_for_rows(path) as file:

        async def answer(engine: Engine, number: int, query: str) -> None:
            nonlocal done
            drawn = replace(sampling, seed=derived_seed("answer", sampling.seed, query))
            async with gate:
                text = await _generate(engine, f"answer-{number}", query, drawn)
            append_row(file, {"query": query, "answer": text})
            done += 1
            progress(done)

        if left:
            async with open_engine() as engine:
                await asyncio.gather(*(answer(engine, *one) for one in enumerate(left)))


def read_answers(path: Path) -> dict[str, str]:
    """Return the answers kept in `path` by query; a last line that a kill cut off is dropped."""
    return {row["query"]: row["answer"] for row in read_rows(path)}


def complete(answer: str) -> str:
    """Return `answer` up to its last whole sentence; empty where there is none.

    The number of a list's entry ends no sentence.
    """
    ends = [
        found.end()
        for found in _SENTENCE_END.finditer(answer)
        if not re.search(r"(?:^|\n)\s*\d+\.$", answer[: found.end()])
    ]
    return answer[: ends[-1]].rstrip() if ends else ""


async def _generate(engine: Engine, request_id: str, query: str, sampling: Sampling) -> str:
    prompt = build_prompt(Layout.INLINE, (), query)
    pieces = []
    async with aclosing(engine.generate(Generation(request_id, prompt, sampling, None))) as chunks:
        async for chunk in chunks:
            pieces.append(chunk.text)
    return "".join(pieces)
