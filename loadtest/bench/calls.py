"""(c) One generation against mechanisms that need several: answers per second on one server.

`one generation` is what the service asks of its engine. `20 samples` is what MOSAIC draws for one
answer (`n=20`, which shares the prompt's prefill; choosing among them comes on top and is not
counted). `3 calls` answers without ads, then asks for insertions into that answer, then for a
rewrite of the result, each call waiting for the one before. All on vLLM's own server, with the
same candidates, lengths and concurrency.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp
from rich.progress import Progress

from loadtest.bench.clients import Json, open_session
from loadtest.bench.options import Options
from loadtest.bench.prompts import make_asks
from loadtest.bench.results import Bars, Result, Table, spread
from loadtest.bench.servers import vllm_server

_CONCURRENCY = 4
_CANDIDATES = 10
_MAX_TOKENS, _QUICK_TOKENS = 64, 4
_SAMPLES = 20
Mechanism = Callable[[aiohttp.ClientSession, str, Json], Awaitable[None]]


async def _one(session: aiohttp.ClientSession, url: str, body: Json) -> None:
    await _said(session, url, body)


async def _samples(session: aiohttp.ClientSession, url: str, body: Json) -> None:
    await _said(session, url, body | {"n": _SAMPLES})


async def _calls(session: aiohttp.ClientSession, url: str, body: Json) -> None:
    """Generate, inject, rewrite."""
    *system, user = body["messages"]
    answer = await _said(session, url, body | {"messages": [user]})
    inject = {"role": "user", "content": f"Insert fitting ads into this answer:\n{answer}"}
    injected = await _said(session, url, body | {"messages": [*system, inject]})
    rewrite = {"role": "user", "content": f"Rewrite this so that it reads well:\n{injected}"}
    await _said(session, url, body | {"messages": [rewrite]})


async def _said(session: aiohttp.ClientSession, url: str, body: Json) -> str:
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        return str((await response.json())["choices"][0]["message"]["content"])


_MECHANISMS: dict[str, tuple[Mechanism, int]] = {
    "one generation": (_one, 12),
    "3 calls": (_calls, 8),
    "20 samples": (_samples, 4),
}
"""With how many answers are asked for in a round."""


async def measure(options: Options) -> Result:
    """Return answers per second of each mechanism."""
    rng = random.Random(1)
    rates: dict[str, list[float]] = {name: [] for name in _MECHANISMS}
    async with open_session() as session, vllm_server(options) as url:
        with Progress(transient=True) as progress:
            task = progress.add_task("calls", total=options.rounds * len(rates))
            await _rate(session, url, "one generation", rng, options)  # warms up
            for number in range(options.rounds):
                names = list(rates)
                for name in names[number % 3 :] + names[: number % 3]:
                    rates[name].append(await _rate(session, url, name, rng, options))
                    progress.advance(task)
    rows = [
        [name, spread(values, 3),
         spread([a / b for a, b in zip(rates["one generation"], values, strict=True)])]
        for name, values in rates.items()
    ]  # fmt: skip
    table = Table(["mechanism", "answers/s", "one generation is faster, times"], rows)
    medians = [statistics.median(values) for values in rates.values()]
    title = f"Answers a second, {_CONCURRENCY} at once"
    plot = Bars("calls", title, "answers/s", list(rates), {"answers/s": medians})
    return Result("c", "One generation against several", options.command("c"),
                  __doc__.partition("\n\n")[2], [table], [plot])  # fmt: skip


async def _rate(
    session: aiohttp.ClientSession, url: str, name: str, rng: random.Random, options: Options
) -> float:
    mechanism, count = _MECHANISMS[name]
    count = 1 if options.is_quick else count
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def answer(body: Json) -> None:
        async with slots:
            await mechanism(session, f"{url}/v1/chat/completions", body)

    max_tokens = _QUICK_TOKENS if options.is_quick else _MAX_TOKENS
    pairs = make_asks(rng, count, _CANDIDATES, max_tokens)
    # Equal lengths, so that what is compared is the number of generations.
    whole = {"stream": False, "ignore_eos": True}
    bodies = [
        {key: value for key, value in theirs.items() if key != "stream_options"} | whole
        for _, theirs in pairs
    ]
    begun = time.perf_counter()
    await asyncio.gather(*map(answer, bodies))
    return count / (time.perf_counter() - begun)
