"""(b) The service's own ceiling: what it adds around a model that costs nothing.

`bare` is a FastAPI route under the same server that parses the same body and sends it back.
`in process` is the service with a stand-in engine of 16 tokens inside; `remote` is the service
with the remote engine before a stand-in vLLM server, which is `direct` when asked without it.
Requests a second at 16 at once; then, at half of that rate, the latency that the service adds: its
own percentiles less those of the bare route, or of the stand-in server that it stands before.
Everything shares this machine's cores, clients included.
"""

import contextlib
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI
from rich.progress import Progress

from loadtest.ask import percentile
from loadtest.bench.clients import Json, at_rate, for_seconds, open_session
from loadtest.bench.options import Options
from loadtest.bench.prompts import bids_of, messages, own_ads, prompt_of, question
from loadtest.bench.results import Bars, Result, Table, spread
from loadtest.bench.tokens import PATIENT, enter_ads
from loadtest.own_service import OwnService, free_port, run_fake_vllm, run_server

CANDIDATES = (10, 100, 200)
CONCURRENCY = 16
MAX_TOKENS = 16
BARE, IN_PROCESS, REMOTE, DIRECT = "bare", "in process", "remote", "direct"

_BEFORE = {IN_PROCESS: BARE, REMOTE: DIRECT}
"""Whose latency is not the service's own."""

_UNLIMITED = {**PATIENT, "LLM_AUCTION_LIMITS__MAX_REQUESTS": "10000"}


def create_bare() -> FastAPI:
    """A service that does nothing: what FastAPI and the server cost by themselves."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> None: ...

    @app.post("/respond")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    return app


@asynccontextmanager
async def _urls(session: aiohttp.ClientSession) -> AsyncGenerator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        port = free_port()
        bare = await stack.enter_async_context(
            run_server(("-m", "loadtest.bench.ceiling", str(port)), port)
        )
        fake = await stack.enter_async_context(run_fake_vllm(ads=1))
        urls = {BARE: f"{bare}/respond", DIRECT: f"{fake}/v1/chat/completions"}
        for name, command in {
            IN_PROCESS: ("-m", "loadtest.stand_in"),
            REMOTE: ("-m", "service.cli", "serve"),
        }.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            service = OwnService(Path(directory), fake, command, **_UNLIMITED)
            await stack.enter_async_context(service)
            await enter_ads(session, service.url, max(CANDIDATES))
            urls[name] = f"{service.url}/respond"
        yield urls


def _bodies(candidates: int) -> dict[str, list[Json]]:
    rng = random.Random(candidates)
    ads, ours, direct = own_ads(max(CANDIDATES)), list[Json](), list[Json]()
    for number in range(64):
        chosen = rng.sample(ads, candidates)
        bids, query = bids_of(chosen, rng), question(rng, number)
        ours.append({"query": query, "candidates": bids, "max_tokens": MAX_TOKENS, "user_id": "u"})
        direct.append({"model": "fake", "messages": messages(prompt_of(chosen, bids, query)),
                       "stream": True})  # fmt: skip
    return {name: direct if name == DIRECT else ours for name in (BARE, IN_PROCESS, REMOTE, DIRECT)}


async def measure(options: Options) -> Result:
    """Return requests a second and added latency at 10, 100 and 200 candidates."""
    seconds = 0.5 if options.is_quick else 4.0
    rates: dict[int, dict[str, list[float]]] = {}
    added: dict[int, dict[str, list[tuple[float, float]]]] = {}
    async with open_session() as session, _urls(session) as urls:
        with Progress(transient=True) as progress:
            task = progress.add_task("ceiling", total=len(CANDIDATES) * options.rounds * 2)
            for candidates in CANDIDATES:
                bodies = _bodies(candidates)
                for name, url in urls.items():  # warms up
                    await for_seconds(session, url, bodies[name], CONCURRENCY, min(1.0, seconds))
                rates[candidates] = {name: [] for name in (BARE, IN_PROCESS, REMOTE)}
                added[candidates] = {IN_PROCESS: [], REMOTE: []}
                for number in range(options.rounds):
                    await _rates(session, urls, bodies, number, seconds, rates[candidates])
                    progress.advance(task)
                for _ in range(options.rounds):
                    half = {
                        n: statistics.median(rates[candidates][n]) / 2 for n in added[candidates]
                    }
                    await _added(session, urls, bodies, half, seconds, added[candidates])
                    progress.advance(task)
    return _result(options, rates, added)


async def _rates(
    session: aiohttp.ClientSession,
    urls: Mapping[str, str],
    bodies: Mapping[str, list[Json]],
    number: int,
    seconds: float,
    rates: dict[str, list[float]],
) -> None:
    names = list(rates)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        run = await for_seconds(session, urls[name], bodies[name], CONCURRENCY, seconds)
        rates[name].append(run.answers_per_s)


async def _added(
    session: aiohttp.ClientSession,
    urls: Mapping[str, str],
    bodies: Mapping[str, list[Json]],
    half: Mapping[str, float],
    seconds: float,
    added: dict[str, list[tuple[float, float]]],
) -> None:
    """Milliseconds added at half load, p50 and p99."""

    async def percentiles(name: str, per_s: float) -> tuple[float, float]:
        spent_s = await at_rate(session, urls[name], bodies[name], per_s, seconds)
        return percentile(spent_s, 0.5) * 1e3, percentile(spent_s, 0.99) * 1e3

    for name, pairs in added.items():
        with_it = await percentiles(name, half[name])
        without = await percentiles(_BEFORE[name], half[name])
        pairs.append((with_it[0] - without[0], with_it[1] - without[1]))


def _result(
    options: Options,
    rates: dict[int, dict[str, list[float]]],
    added: dict[int, dict[str, list[tuple[float, float]]]],
) -> Result:
    rows, delays = [], []
    for candidates, of in rates.items():
        ratios = [
            spread([a / b for a, b in zip(of[name], of[BARE], strict=True)])
            for name in (IN_PROCESS, REMOTE)
        ]
        rows.append([str(candidates), *(spread(values, 0) for values in of.values()), *ratios])
        cells = [
            spread([pair[place] for pair in added[candidates][name]], 1)
            for name in (IN_PROCESS, REMOTE)
            for place in (0, 1)
        ]
        delays.append([str(candidates), *cells])
    tables = [
        Table(["candidates: requests/s", BARE, IN_PROCESS, REMOTE, "in process ÷ bare",
               "remote ÷ bare"], rows),
        Table(["candidates: added ms at half load", "in process p50", "in process p99",
               "remote p50", "remote p99"], delays),
    ]  # fmt: skip
    series = {
        name: [statistics.median(rates[count][name]) for count in rates]
        for name in (BARE, IN_PROCESS, REMOTE)
    }
    plot = Bars(
        "ceiling",
        "Requests a second by candidates, model of zero cost",
        "requests/s",
        [str(count) for count in rates],
        series,
    )
    return Result("b", "The service's own ceiling", options.command("b"),
                  __doc__.partition("\n\n")[2], tables, [plot])  # fmt: skip


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(create_bare(), port=int(sys.argv[1]), log_level="warning", access_log=False)
