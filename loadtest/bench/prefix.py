"""(d) What the prefix cache gives: time to the first token with a recurring list of candidates.

Two services, one for each layout of the prompt. `inline` has the bid in the ad's line, so that a
new bid makes a new prompt from there on; `split` keeps bids apart, after the ads. Bids change with
every request; the list of 100 ads is the same in every request, or changes. One request at a time.
"""

import itertools
import random
import statistics

import aiohttp
from rich.progress import Progress

from loadtest.bench.clients import open_session, stream
from loadtest.bench.options import Options
from loadtest.bench.prompts import bids_of, own_ads, question
from loadtest.bench.results import Bars, Result, Table, spread
from loadtest.bench.servers import real_service

_LAYOUTS = ("inline", "split")
_LISTS = ("changing", "recurring")
_CANDIDATES = 100
_EACH = 2
Cell = tuple[str, str]


async def measure(options: Options) -> Result:
    """Return the time to the first token in each layout, for lists that recur and that change."""
    rng = random.Random(1)
    cells: list[Cell] = list(itertools.product(_LAYOUTS, _LISTS))
    ttft_ms: dict[Cell, list[float]] = {cell: [] for cell in cells}
    async with (
        open_session() as session,
        real_service(options, session, LLM_AUCTION_GENERATION__LAYOUT="inline") as inline,
        real_service(options, session, LLM_AUCTION_GENERATION__LAYOUT="split") as split,
    ):
        urls = {"inline": inline.url, "split": split.url}
        with Progress(transient=True) as progress:
            task = progress.add_task("prefix", total=options.rounds * len(cells) * _EACH)
            for url in urls.values():
                await _ttft_ms(session, url, "recurring", rng, options)  # fills the cache
            for number in range(options.rounds):
                for cell in cells[:: -1 if number % 2 else 1]:
                    for _ in range(_EACH):
                        layout, kind = cell
                        spent_ms = await _ttft_ms(session, urls[layout], kind, rng, options)
                        ttft_ms[cell].append(spent_ms)
                        progress.advance(task)
    return _result(options, ttft_ms)


async def _ttft_ms(
    session: aiohttp.ClientSession, url: str, kind: str, rng: random.Random, options: Options
) -> float:
    candidates = 10 if options.is_quick else _CANDIDATES
    ads = own_ads(200)
    chosen = ads[:candidates] if kind == "recurring" else rng.sample(ads, candidates)
    body = {
        "query": question(rng, rng.randrange(100)),
        "candidates": bids_of(chosen, rng),
        "max_tokens": 4,
        "stream": True,
    }
    return (await stream(session, f"{url}/respond", body)).ttft_s * 1e3


def _result(options: Options, ttft_ms: dict[Cell, list[float]]) -> Result:
    rows = []
    for layout in _LAYOUTS:
        changing, recurring = (ttft_ms[layout, kind] for kind in _LISTS)
        ratios = [a / b for a, b in zip(changing, recurring, strict=True)]
        rows.append([layout, spread(changing, 0), spread(recurring, 0), spread(ratios, 1)])
    table = Table(["layout", "changing list, ms", "recurring list, ms", "times faster"], rows)
    series = {
        kind: [statistics.median(ttft_ms[layout, kind]) for layout in _LAYOUTS] for kind in _LISTS
    }
    plot = Bars(
        "prefix", f"Time to the first token, {_CANDIDATES} candidates", "ms", _LAYOUTS, series
    )
    return Result("d", "Prefix cache", options.command("d"),
                  __doc__.partition("\n\n")[2], [table], [plot])  # fmt: skip
