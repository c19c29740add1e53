"""(a) `/respond` against vLLM's own server, on the same prompts with the same sampling, streamed.

Both run the same model with the same engine settings on loopback. vLLM's server is asked twice:
under the grammar that the service decodes with, and without it, which shows what the grammar costs.
On a CPU the service's engine draws tokens and computes norms faster than vLLM does as it comes, so
a second service runs without that: its ratio, under the grammar, is what the service itself costs.
Each server's prefix cache is warm for the instructions only: candidates differ from request to
request, and a salt keeps vLLM's two runs from helping each other.
"""

import itertools
import json
import random
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack

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
_AS_IT_COMES = {
    "logits_processors": [],
    "ir_op_priority": {},
    "worker_extension_cls": "models.engine.lifeline.Lifeline",
}
"""What takes from the service's engine all that it adds to vLLM on a CPU."""
SERVICE, PLAIN = "service", "service, plain engine"
BOUND, FREE = "vLLM with grammar", "vLLM without"
_RATIOS = {
    "service ÷ vLLM, grammar on": (SERVICE, BOUND),
    "plain engine, grammar on": (PLAIN, BOUND),
    "service ÷ vLLM, grammar off": (SERVICE, FREE),
}
Runs = dict[str, list[Run]]


async def measure(options: Options) -> Result:
    """Return output tokens/s, time to first token and time per token in every cell."""
    cells = list(itertools.product(_CANDIDATES, _CONCURRENCIES))
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        service = await stack.enter_async_context(real_service(options, session))
        urls = {SERVICE: f"{service.url}/respond"}
        if has_cpu_vllm():
            args = {"LLM_AUCTION_ENGINE__ARGS": json.dumps(_AS_IT_COMES)}
            plain = await stack.enter_async_context(real_service(options, session, **args))
            urls[PLAIN] = f"{plain.url}/respond"
        vllm = await stack.enter_async_context(vllm_server(options))
        urls |= dict.fromkeys((BOUND, FREE), f"{vllm}/v1/chat/completions")
        runs: dict[tuple[int, int], Runs] = {cell: {name: [] for name in urls} for cell in cells}
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
    """All of `urls` once on the same questions, beginning with another each time."""
    candidates, concurrency = cell
    count = 2 if options.is_quick else _REQUESTS[concurrency]
    if not has_cpu_vllm():
        count *= _GPU_TIMES
    max_tokens = _QUICK_TOKENS if options.is_quick else _MAX_TOKENS
    (warm_ours, warm_theirs), *pairs = make_asks(rng, count + 1, candidates, max_tokens)
    of_service = [warm_ours, *(ours for ours, _ in pairs)]
    asks: dict[str, list[Json]] = {
        SERVICE: of_service,
        PLAIN: of_service,
        BOUND: [warm_theirs, *(with_grammar(theirs, ours) for ours, theirs in pairs)],
        FREE: [warm_theirs, *(theirs for _, theirs in pairs)],
    }
    names, first = list(urls), number % len(urls)
    runs = {}
    for name in names[first:] + names[:first]:
        salt = {} if name in (SERVICE, PLAIN) else {"cache_salt": f"{rng.random()}"}
        warm_up, *bodies = ({**body, **salt} for body in asks[name])
        await together(session, urls[name], [warm_up | {"max_tokens": 1}], 1)
        runs[name] = await together(session, urls[name], bodies, concurrency)
    return runs


def _result(options: Options, runs: dict[tuple[int, int], Runs]) -> Result:
    names = list(next(iter(runs.values())))
    rates, quotients, delays = [], [], []
    ratios = {ratio: list[float]() for ratio, pair in _RATIOS.items() if set(pair) <= set(names)}
    for (candidates, concurrency), of in runs.items():
        rate = {name: [run.tokens_per_s for run in of[name]] for name in names}
        cell = [f"{candidates} candidates, {concurrency} at once"]
        rates.append(cell + [spread(rate[name], 1) for name in names])
        delays.append(cell + [_delays(of[name]) for name in names])
        to = {ratio: _quotients(*(rate[name] for name in _RATIOS[ratio])) for ratio in ratios}
        quotients.append(cell + [spread(values, 3) for values in to.values()])
        for ratio, values in to.items():
            ratios[ratio].append(statistics.median(values))
    tables = [
        Table(["ratio of tokens/s", *ratios], quotients),
        Table(["tokens/s", *names], rates),
        Table(["TTFT, time per token (median ms)", *names], delays),
    ]
    groups = [f"{candidates} ads, {concurrency}" for candidates, concurrency in runs]
    plot = Bars(
        "against_vllm", "Tokens/s of the service ÷ of vLLM's own server", "ratio", groups, ratios
    )
    return Result("a", "The service against vLLM's own server", options.command("a"),
                  __doc__.partition("\n\n")[2], tables, [plot])  # fmt: skip


def _quotients(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _delays(runs: list[Run]) -> str:
    timings = [timing for run in runs for timing in run.timings]
    ttft_ms = statistics.median(timing.ttft_s for timing in timings) * 1e3
    tpot_ms = statistics.median(timing.tpot_s for timing in timings) * 1e3
    return f"{ttft_ms:,.1f}, {tpot_ms:.1f}"
