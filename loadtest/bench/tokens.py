"""(f) The token ceiling of one API process: CPU microseconds per token, by what they are spent on.

Three steps outwards. The application alone, called as a server calls it, with a stand-in engine
at full speed; the same under uvicorn, whose writes reach a socket; and with vLLM in process,
whose output handler runs in the API process too (the model computes in another, which is not
counted). Per token: the slope between short and long answers; what a request costs at once is
shown apart. This part imports the service, since an engine can only be replaced from within.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
from rich.progress import Progress

from loadtest.bench.clients import Json, open_session, together
from loadtest.bench.options import Options
from loadtest.bench.prompts import bids_of, own_ads
from loadtest.bench.results import Bars, Result, Table, spread
from loadtest.own_service import OwnService

CONCURRENCY = 32
_SHORT, _LONG = 16, 256
_REQUESTS = 128
_MEASURABLE_US = 0.5
_PATIENT_MS = 10_000
PATIENT = {"LLM_AUCTION_STORE__TIMEOUT_MS": str(_PATIENT_MS)}
"""Of a service that is kept busier than any in production should be: its store is not given up."""

_UNUSED = "http://127.0.0.1:9"
_H100_TOKENS_PER_S = 10_000

Cost = Callable[[Json], Awaitable[tuple[float, int]]]
"""CPU seconds of the API process for many requests with one body, and the tokens written."""


async def measure(options: Options) -> Result:
    """Return the costs of all steps; with vLLM only where `options.model` is set."""
    rows: list[list[str]] = []
    medians: dict[str, list[float]] = {"streamed": [], "not streamed": []}
    steps = {"application alone": _application, "under uvicorn": _uvicorn, "with vLLM": _vllm}
    with Progress(transient=True) as progress:
        task = progress.add_task("tokens", total=len(steps))
        for name, step in steps.items():
            costs = await step(options)
            for is_streamed, (per_token, per_request) in costs.items():
                kind = "streamed" if is_streamed else "not streamed"
                cells = [spread(per_token, 1), spread(per_request, 0), _ceiling(per_token)]
                rows.append([name, kind, *cells])
                medians[kind].append(sorted(per_token)[len(per_token) // 2])
            progress.advance(task)
    columns = ("step", "answers", "CPU µs a token", "CPU µs a request", "tokens/s a process")
    plot = Bars("tokens", "CPU time of the API process", "µs a token", list(steps), medians)
    text = __doc__.partition("\n\n")[2].strip() + "\n\n" + _on_paper(medians)
    return Result("f", "The token ceiling of one API process", options.command("f"),
                  text, [Table(columns, rows)], [plot])  # fmt: skip


def _ceiling(per_token: list[float]) -> str:
    """Tokens a second that one core can handle; a dash where a token costs nothing measurable."""
    if min(per_token) < _MEASURABLE_US:
        return "—"
    return spread([1e6 / cost for cost in per_token], 0)


def _on_paper(medians: dict[str, list[float]]) -> str:
    """What the last step's costs mean for engines that are faster than this machine's."""
    cores = {kind: costs[-1] * 1e-6 * _H100_TOKENS_PER_S for kind, costs in medians.items()}
    loads = ", ".join(
        f"{share:.2f} cores {kind} ({1_000 * share:,.0f} for a thousand such engines)"
        for kind, share in cores.items()
    )
    return (
        f"On paper: beside an engine that writes {_H100_TOKENS_PER_S:,} tokens a second, as one"
        f" H100 does with a small model, the API process keeps busy {loads}. Above one core, tokens"
        " that arrive while it is busy are sent together; `stream_interval` has the engine do so"
        " from the start."
    )


Costs = dict[bool, tuple[list[float], list[float]]]


async def _slopes(cost: Cost, options: Options, requests: int, long: int) -> Costs:
    """CPU microseconds per token and per request, streamed and not, one value a round."""
    query = "Write a long and detailed guide to hiking boots, with many examples."
    body = {"query": query, "candidates": bids_of(own_ads(10)), "seed": 1}
    costs: Costs = {True: ([], []), False: ([], [])}
    await cost(body | {"max_tokens": _SHORT, "stream": True})  # warms up
    for _ in range(options.rounds):
        for is_streamed, (per_token, per_request) in costs.items():
            asked = body | {"stream": is_streamed}
            short_s, few = await cost(asked | {"max_tokens": _SHORT})
            long_s, many = await cost(asked | {"max_tokens": long})
            slope_s = (long_s - short_s) / (many - few)
            per_token.append(slope_s * 1e6)
            per_request.append((short_s - slope_s * few) / requests * 1e6)
    return costs


async def _application(options: Options) -> Costs:
    from loadtest.stand_in import use_stand_in
    from service.app import create_app
    from service.settings import EngineSettings, Settings, StoreSettings

    use_stand_in()
    with tempfile.TemporaryDirectory(prefix="llm-auction-bench-") as directory:
        engine = EngineSettings(kind="remote", url=_UNUSED)
        store = StoreSettings(timeout_ms=_PATIENT_MS)
        app = create_app(Settings(state_dir=Path(directory), engine=engine, store=store))
        async with app.router.lifespan_context(app):

            async def cost(body: Json) -> tuple[float, int]:
                sent = json.dumps(body).encode()
                begun = time.process_time()
                for _ in range(_REQUESTS // CONCURRENCY):
                    calls = (_call(app, "POST", "/respond", sent) for _ in range(CONCURRENCY))
                    await asyncio.gather(*calls)
                return time.process_time() - begun, body["max_tokens"] * _REQUESTS

            await _enter_ads_in(app)
            return await _slopes(cost, options, _REQUESTS, _LONG)


async def _enter_ads_in(app: Callable[..., Awaitable[None]]) -> None:
    lines = "\n".join(json.dumps(ad) for ad in own_ads(10)).encode()
    await _call(app, "POST", "/ads/import", lines, b"application/x-ndjson")


async def _call(
    app: Callable[..., Awaitable[None]],
    method: str,
    path: str,
    body: bytes,
    content_type: bytes = b"application/json",
) -> None:
    """One request as an ASGI server hands it over; what is sent is dropped."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(b"content-type", content_type), (b"host", b"bench")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Json:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Json) -> None:
        pass

    await app(scope, receive, send)


async def _uvicorn(options: Options) -> Costs:
    with tempfile.TemporaryDirectory(prefix="llm-auction-bench-") as directory:
        command = ("-m", "loadtest.stand_in")
        service = OwnService(Path(directory), _UNUSED, command, **PATIENT)
        async with service, open_session() as session:
            await enter_ads(session, service.url)
            cost = _cost_of(service, session, _REQUESTS)
            return await _slopes(cost, options, _REQUESTS, _LONG)


async def _vllm(options: Options) -> Costs:
    """With the real model: shorter, as each token takes milliseconds to compute."""
    with tempfile.TemporaryDirectory(prefix="llm-auction-bench-") as directory:
        variables = {**PATIENT, "LLM_AUCTION_ENGINE__MODEL": str(options.model)}
        async with (
            OwnService(Path(directory), None, **variables) as service,
            open_session() as session,
        ):
            await enter_ads(session, service.url)
            cost = _cost_of(service, session, CONCURRENCY)
            return await _slopes(cost, options, CONCURRENCY, 32 if options.is_quick else 96)


def _cost_of(service: OwnService, session: aiohttp.ClientSession, requests: int) -> Cost:
    assert service.process is not None
    process = psutil.Process(service.process.pid)

    async def cost(body: Json) -> tuple[float, int]:
        before = process.cpu_times()
        bodies = [body | {"seed": number} for number in range(requests)]
        run = await together(session, f"{service.url}/respond", bodies, CONCURRENCY)
        after = process.cpu_times()
        seconds = after.user + after.system - before.user - before.system
        return seconds, sum(timing.tokens for timing in run.timings)

    return cost


async def enter_ads(session: aiohttp.ClientSession, url: str, count: int = 10) -> None:
    """Put the ads that the benchmarks bid on into the service's catalogue."""
    lines = "\n".join(json.dumps(ad) for ad in own_ads(count))
    headers = {"Content-Type": "application/x-ndjson"}
    async with session.post(f"{url}/ads/import", data=lines, headers=headers) as response:
        response.raise_for_status()
