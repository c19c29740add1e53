"""(a) `/respond` against vLLM's own server, on the same prompts with the same sampling, streamed.

Both run the same model with the same engine settings on loopback. vLLM's server is asked twice:
under the grammar that the service decodes with, which shows what the service itself costs, and
without it, which shows what the grammar costs as well. Each server's prefix cache is warm for the
instructions only: candidates differ from request to request, and a salt keeps vLLM's two runs
from helping each other.
"""

import itertools
import random
import statistics
from collections.abc import Mapping

import aiohttp
from rich.progress import Progress

from loadtest.bench.clients import Json, Run, open_session, together
from loadtest.bench.options import Options
from loadtest.bench.prompts import make_asks, with_grammar
from loadtest.bench.results import Bars, Result, Table, spread
from loadtest.bench.servers import real_service, vllm_server
from models.engine.environment import has_cpu_vllm

_CONCURRENCIES = (1, 8, 32)
_CANDIDATES = (0, 10)
_REQUESTS = {1: 3, 8: 16, 32: 48}
_GPU_TIMES = 4
"""As many requests on a GPU, where an answer takes a fraction of the time."""
_MAX_TOKENS, _QUICK_TOKENS = 64, 4
SERVICE, BOUND, FREE = "service", "vLLM with grammar", "vLLM without"
Runs = dict[str, list[Run]]


async def measure(options: Options) -> Result:
    """Return output tokens/s, time to first token and time per token in every cell."""
    cells = list(itertools.product(_CANDIDATES, _CONCURRENCIES))
    runs: dict[tuple[int, int], Runs] = {cell: {SERVICE: [], BOUND: [], FREE: []} for cell in cells}
    rng = random.Random(1)
    async with (
        open_session() as session,
        real_service(options, session) as service,
        vllm_server(options) as vllm,
    ):
        urls = {SERVICE: f"{service.url}/respond"}
        urls |= dict.fromkeys((BOUND, FREE), f"{vllm}/v1/chat/completions")
        with Progress(transient=True) as progress:
            task = progress.add_task("against vLLM", total=len(cells) * (options.rounds + 1))
            for number in range(options.rounds + 1):
                for cell in cells:
                    given = await _round(session, urls, rng, cell, number, options)
                    for name, run in given.items() if number else ():  # the first warms up
                        runs[cell][name].append(run)
                    progress.advance(task)
    return _result(options, runs)


async def _round(
    session: aiohttp.ClientSession,
    urls: Mapping[str, str],
    rng: random.Random,
    cell: tuple[int, int],
    number: int,
    options: Options,
) -> dict[str, Run]:
    """All three once on the same questions, beginning with another each time."""
    candidates, concurrency = cell
    count = 2 if options.is_quick else _REQUESTS[concurrency]
    if not has_cpu_vllm():
        count *= _GPU_TIMES
    max_tokens = _QUICK_TOKENS if options.is_quick else _MAX_TOKENS
    (warm_ours, warm_theirs), *pairs = make_asks(rng, count + 1, candidates, max_tokens)
    asks: dict[str, list[Json]] = {SERVICE: [warm_ours], BOUND: [warm_theirs], FREE: [warm_theirs]}
    for ours, theirs in pairs:
        asks[SERVICE].append(ours)
        asks[BOUND].append(with_grammar(theirs, ours))
        asks[FREE].append(theirs)
    names = list(asks)
    runs = {}
    for name in names[number % 3 :] + names[: number % 3]:
        salt = {} if name == SERVICE else {"cache_salt": f"{rng.random()}"}
        warm_up, *bodies = ({**body, **salt} for body in asks[name])
        await together(session, urls[name], [warm_up | {"max_tokens": 1}], 1)
        runs[name] = await together(session, urls[name], bodies, concurrency)
    return runs


def _result(options: Options, runs: dict[tuple[int, int], Runs]) -> Result:
    rates, delays, ratios = [], [], {BOUND: list[float](), FREE: list[float]()}
    for (candidates, concurrency), of in runs.items():
        rate = {name: [run.tokens_per_s for run in of[name]] for name in of}
        to = {n: [a / b for a, b in zip(rate[SERVICE], rate[n], strict=True)] for n in ratios}
        cell = [f"{candidates} candidates, {concurrency} at once"]
        rates.append(cell + [spread(rate[n], 1) for n in of] + [spread(to[n], 3) for n in ratios])
        delays.append(cell + [_delays(of[name]) for name in of])
        for name, values in ratios.items():
            values.append(statistics.median(to[name]))
    tables = [
        Table(["tokens/s", SERVICE, BOUND, FREE, "ratio, grammar on", "ratio, grammar off"], rates),
        Table(["TTFT, time per token (median ms)", SERVICE, BOUND, FREE], delays),
    ]
    groups = [f"{candidates} ads, {concurrency}" for candidates, concurrency in runs]
    plot = Bars(
        "against_vllm", "Tokens/s of the service ÷ of vLLM's own server", "ratio", groups, ratios
    )
    return Result("a", "The service against vLLM's own server", options.command("a"),
                  __doc__.partition("\n\n")[2], tables, [plot])  # fmt: skip


def _delays(runs: list[Run]) -> str:
    timings = [timing for run in runs for timing in run.timings]
    ttft_ms = statistics.median(timing.ttft_s for timing in timings) * 1e3
    tpot_ms = statistics.median(timing.tpot_s for timing in timings) * 1e3
    return f"{ttft_ms:,.1f}, {tpot_ms:.1f}"
