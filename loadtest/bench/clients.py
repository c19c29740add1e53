"""Clients that measure: many requests at once, at a rate, streamed or not.

On aiohttp, whose parsing in C leaves more of a small machine to what is measured.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

Json = dict[str, Any]
_LONGEST_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer. ttft_s: to its first text; seconds count from when it was asked."""

    ttft_s: float
    total_s: float
    tokens: int

    @property
    def tpot_s(self) -> float:
        """Seconds per token after the first."""
        return (self.total_s - self.ttft_s) / max(1, self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Run:
    """Answers that were asked for together, in `seconds`."""

    timings: Sequence[Timing]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(timing.tokens for timing in self.timings) / self.seconds

    @property
    def answers_per_s(self) -> float:
        return len(self.timings) / self.seconds


def open_session() -> aiohttp.ClientSession:
    """A session without a bound on connections; a request may take ten minutes."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=600),
        read_bufsize=_LONGEST_LINE_BYTES,
    )


async def stream(session: aiohttp.ClientSession, url: str, body: Json) -> Timing:
    """Ask for a streamed answer of the service or of vLLM's own server, and time it."""
    begun, first, tokens = time.perf_counter(), None, 0
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[5:])
            if first is None and _has_text(event):
                first = time.perf_counter()
            if usage := event.get("usage"):
                tokens = usage["completion_tokens"]
    ended = time.perf_counter()
    return Timing((first or ended) - begun, ended - begun, tokens)


def _has_text(event: Json) -> bool:
    choices = event.get("choices") or ()
    said = any(choice.get("delta", {}).get("content") for choice in choices)
    return said or bool(event.get("text") or event.get("ad_id"))


async def ask(session: aiohttp.ClientSession, url: str, body: Json) -> Timing:
    """Ask for an answer and read all of it before its time is taken; tokens where it is JSON."""
    begun = time.perf_counter()
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        read = await response.read()
        seconds = time.perf_counter() - begun
        answer = json.loads(read) if response.content_type == "application/json" else {}
    return Timing(seconds, seconds, (answer.get("usage") or {}).get("completion_tokens", 0))


async def together(
    session: aiohttp.ClientSession, url: str, bodies: Iterable[Json], concurrency: int
) -> Run:
    """Ask all, `concurrency` at a time; streamed where a body says so."""
    slots = asyncio.Semaphore(concurrency)

    async def one(body: Json) -> Timing:
        async with slots:
            return await (stream if body.get("stream") else ask)(session, url, body)

    begun = time.perf_counter()
    timings = await asyncio.gather(*map(one, bodies))
    return Run(timings, time.perf_counter() - begun)


async def for_seconds(
    session: aiohttp.ClientSession,
    url: str,
    bodies: Sequence[Json],
    concurrency: int,
    seconds: float,
) -> Run:
    """Ask again and again, always `concurrency` at once."""
    begun, timings = time.perf_counter(), list[Timing]()

    async def client(number: int) -> None:
        while time.perf_counter() < begun + seconds:
            timings.append(await ask(session, url, bodies[number % len(bodies)]))
            number += concurrency

    await asyncio.gather(*map(client, range(concurrency)))
    return Run(timings, time.perf_counter() - begun)


async def at_rate(
    session: aiohttp.ClientSession, url: str, bodies: Sequence[Json], per_s: float, seconds: float
) -> list[float]:
    """Ask at random moments, `per_s` a second on average; each answer's seconds since its moment.

    A moment does not wait for earlier answers, so that a slow one delays none, as in real traffic.
    """
    rng, loop = random.Random(1), asyncio.get_running_loop()
    moments, at = list[float](), 0.0
    while (at := at + rng.expovariate(per_s)) < seconds:
        moments.append(at)
    begun = loop.time()

    async def one(moment: float, body: Json) -> float:
        await asyncio.sleep(begun + moment - loop.time())
        await ask(session, url, body)
        return loop.time() - begun - moment

    return await asyncio.gather(
        *(one(moment, bodies[i % len(bodies)]) for i, moment in enumerate(moments))
    )
