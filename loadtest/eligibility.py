"""How long it takes to find out which candidates may stand in an answer.

    python -m loadtest.eligibility --candidates 100 --requests 2000

Fills a Valkey, as the service starts it, with ads and advertisers that all have budgets and spend,
and with what a user was shown lately. Then times the service's one round trip for so many drawn
candidates, and the decision on what it brought, one request after the other. Exits with 1 where the
median round trip takes 2 ms or more. The service's store and auction, all that is imported from it,
are what is measured.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loadtest.own_service import NAMESPACE
from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.eligibility import Bid, Terms, decide
from service.settings import StoreSettings
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.connection import Store, open_store
from service.store.ledger import ChargeRequest, Ledger
from service.store.showings import Showings

GOAL_MS = 2.0
_PER_ADVERTISER = 5
_SHOWN = 50
_BID_MICROS = 500_000
_USER = "user"
_TIMEOUT_MS = 10_000


async def fill(store: Store, ads: int, now: datetime) -> None:
    """Enter ads and advertisers; charge each ad once; show some to the user."""
    advertisers = range(-(-ads // _PER_ADVERTISER))
    budget = {"total": 10_000, "daily": 1_000}
    for number in advertisers:
        payer = {"advertiser_id": f"adv-{number}", "budget": budget}
        await Advertisers(store, NAMESPACE).put(Advertiser.model_validate(payer))
    await Catalog(store, NAMESPACE).import_many(_ad(number, budget) for number in range(ads))
    ledger = Ledger(store, NAMESPACE)
    for number in range(ads):
        payer_id = f"adv-{number // _PER_ADVERTISER}"
        request = ChargeRequest(
            f"resp_{number:032}", f"Ad-{number}", payer_id, "click", 1, 1, 1, now, 3_600
        )
        await ledger.charge(request)
    shown = [f"Ad-{number}" for number in range(min(_SHOWN, ads))]
    showings = Showings(store, NAMESPACE, 3_600)
    await store.run(lambda redis: showings.command(redis, _USER, "resp_1", shown, now))


def _ad(number: int, budget: Any) -> Ad:
    return Ad.model_validate(
        {
            "ad_id": f"Ad-{number}",
            "title": f"Trailhead Boots {number}",
            "description": "Waterproof and light, for long days on wet paths, with a good grip.",
            "category": "hiking boots",
            "landing_url": f"https://www.trailhead-boots.example/{number}",
            "advertiser_id": f"adv-{number // _PER_ADVERTISER}",
            "blocked_topics": ["weapons", "gambling"],
            "reserve": "0.1",
            "budget": budget,
        }
    )


async def measure(store: Store, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each request's PING, round trip and decision."""
    now = datetime.now(UTC)
    await fill(store, options.ads, now)
    catalog, rng = Catalog(store, NAMESPACE), random.Random(options.seed)
    viewer = Showings(store, NAMESPACE, 3_600).viewer(_USER, now)
    times: dict[str, list[float]] = {"a PING": [], "the round trip": [], "the decision": []}
    for _ in track(range(options.requests), "asking", console=Console(stderr=True), transient=True):
        ids = [f"Ad-{number}" for number in rng.sample(range(options.ads), options.candidates)]
        bids = [Bid(ad_id, _BID_MICROS) for ad_id in ids]
        moments = [time.perf_counter()]
        await store.ping()
        moments.append(time.perf_counter())
        records = await catalog.fetch(ids, now.date(), viewer)
        moments.append(time.perf_counter())
        eligible, _ = decide(bids, records, 0, "Which boots for wet paths?", Terms(frequency_cap=3))
        moments.append(time.perf_counter())
        if len(eligible) != options.candidates:
            raise RuntimeError(f"{len(eligible)} of {options.candidates} candidates are eligible")
        for taken, (begun, ended) in zip(times.values(), pairwise(moments), strict=True):
            taken.append((ended - begun) * 1_000)
    return times


async def run(options: argparse.Namespace) -> int:
    settings = StoreSettings(timeout_ms=_TIMEOUT_MS)
    with tempfile.TemporaryDirectory(prefix="llm-auction-eligibility-") as directory:
        async with open_store(settings, Path(directory), lambda line: None) as store:
            times = await measure(store, options)
    table = Table("ms", "p50", "p90", "p99")
    for what, taken in times.items():
        percentiles = statistics.quantiles(taken, n=100)
        table.add_row(what, *(f"{percentiles[at - 1]:.2f}" for at in (50, 90, 99)))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{options.candidates} candidates of {options.ads:,} ads, {options.requests:,} requests;"
        f" the goal is a median round trip under {GOAL_MS} ms"
    )
    return 0 if statistics.median(times["the round trip"]) < GOAL_MS else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--ads", type=int, default=1_000, help="in the catalogue")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.candidates > options.ads:
        parser.error(f"--candidates {options.candidates} must not exceed --ads {options.ads}")
    return uvloop.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
