"""Clicks settled per second, on a Valkey as the service starts it.

    python -m loadtest.settle --clicks 5000 --rounds 5

For each setting of `fsync`: charges through the service's own `Ledger.charge`, without HTTP,
against bare EVALSHA of a script that does nothing, by the same client on as many connections, in
turns, so that a busy machine slows both. Then POST /v1/clicks of a whole service, whose model is
the stand-in of `fake_vllm`. Client, service and Valkey share this machine's cores: with cores of
their own all are faster. Exits with 1 where the median ratio of charges to bare scripts is under
0.5. The service's store, the one thing imported from it, is what is measured.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.own_service import NAMESPACE, OwnService, run_fake_vllm
from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.client import open_client
from service.store.connection import open_store
from service.store.ledger import ChargeRequest, ChargeState, Ledger
from service.store_url import StoreUrl

FSYNC = ("everysec", "always")
GOAL = 0.5
_ADS = 10
_AD = {
    "title": "Boots",
    "category": "boots",
    "landing_url": "https://boots.example/",
    "advertiser_id": "adv-1",
    "budget": {"total": 1_000_000, "daily": 1_000_000},
}
_ASKING_AT_ONCE = 8
_TIMEOUT_MS = 10_000
Json = dict[str, Any]


async def per_second(one: Callable[[Any], Awaitable[None]], over: list[Any], at_once: int) -> float:
    """How many of `one(item)` are done a second, `at_once` at any time."""
    items = iter(over)

    async def work() -> None:
        for item in items:
            await one(item)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return len(over) / (time.perf_counter() - begun)


async def time_charges(
    fsync: str, options: argparse.Namespace, advance: Callable[[], None]
) -> list[tuple[float, float]]:
    """Bare scripts and charges per second, in each round."""
    settings = StoreSettings.model_validate({"fsync": fsync, "timeout_ms": _TIMEOUT_MS})
    with tempfile.TemporaryDirectory(prefix="llm-auction-settle-") as directory:
        state_dir, key = Path(directory), f"{{{NAMESPACE}}}:none"
        url = StoreUrl.parse(f"unix://{state_dir}/valkey/valkey.sock")
        async with (
            open_store(settings, state_dir, lambda line: None) as store,
            open_client(url, _TIMEOUT_MS / 1_000, key) as redis,
        ):
            await Catalog(store, NAMESPACE).put(Ad.model_validate({**_AD, "ad_id": "Ad-1"}))
            ledger, nothing = Ledger(store, NAMESPACE), await redis.script_load("return 1")

            async def bare(number: int) -> None:
                await redis.evalsha(nothing, 1, key)

            async def charge(number: int) -> None:
                made = await ledger.charge(_request(number))
                if made.state is not ChargeState.CHARGED:
                    raise RuntimeError(f"a charge came to {made}")

            numbers, found = list(range(options.clicks)), []
            for operation in (bare, charge):  # connections and scripts are made
                await per_second(operation, numbers[:500], options.connections)
            for _ in range(options.rounds):
                rates = [await per_second(o, numbers, options.connections) for o in (bare, charge)]
                found.append((rates[0], rates[1]))
                advance()
            return found


def _request(number: int) -> ChargeRequest:
    return ChargeRequest(
        response_id=f"resp_{uuid.uuid4().hex}",
        ad_id="Ad-1",
        advertiser_id="adv-1",
        event="click",
        price_micros=1,
        bid_micros=1,
        position=1,
        at=datetime.now(UTC),
        dedupe_ttl_s=86_400,
        client_event_id=f"event-{number}",
    )


async def time_http(
    fsync: str, options: argparse.Namespace, advance: Callable[[], None]
) -> list[float]:
    """Clicks per second over HTTP, in each round."""
    with tempfile.TemporaryDirectory(prefix="llm-auction-settle-") as directory:
        async with run_fake_vllm(ads=_ADS) as engine_url:
            service = OwnService(
                Path(directory),
                engine_url,
                LLM_AUCTION_STORE__FSYNC=fsync,
                LLM_AUCTION_STORE__TIMEOUT_MS=str(_TIMEOUT_MS),
            )
            try:
                await service.start()
                async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                    rates = []
                    for _ in range(options.rounds):
                        tokens = await make_tokens(http, options.http_clicks)
                        rates.append(await report_clicks(service, tokens, options.connections))
                        advance()
                    return rates
            finally:
                await service.stop()


async def make_tokens(http: httpx.AsyncClient, count: int) -> list[str]:
    """Click tokens of answers that are given for this; `_ADS` an answer."""
    for number in range(_ADS):
        ad = {**_AD, "title": f"Boots {number}"}
        (await http.put(f"/ads/Ad-{number}", json=ad)).raise_for_status()
    candidates = [{"ad_id": f"Ad-{number}", "bid": 0.001} for number in range(_ADS)]
    ask = {"query": "Which boots?", "candidates": candidates, "max_ads": _ADS}
    tokens: list[str] = []

    async def answer(_: int) -> None:
        answered = (await http.post("/respond", json=ask)).raise_for_status().json()
        tokens.extend(ad["click_url"].rpartition("/")[2] for ad in answered["ads"])

    await per_second(answer, list(range(count // _ADS)), _ASKING_AT_ONCE)
    return tokens


async def report_clicks(service: OwnService, tokens: Iterable[str], at_once: int) -> float:
    """Clicks per second over connections that stay open; each must be charged."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(at_once):
        connections.put_nowait(await asyncio.open_connection(host, int(port)))
    requests = [_http_request(token) for token in tokens]

    async def click(request: bytes) -> None:
        reader, writer = connections.get_nowait()
        writer.write(request)
        answer = await _http_body(reader)
        connections.put_nowait((reader, writer))
        if answer.get("state") != "charged":
            raise RuntimeError(f"a click came to {answer}")

    rate = await per_second(click, requests, at_once)
    for _ in range(at_once):
        connections.get_nowait()[1].close()
    return rate


def _http_request(token: str) -> bytes:
    # by hand: a client library takes longer for a request than the service
    body = json.dumps({"token": token, "client_event_id": uuid.uuid4().hex}).encode()
    head = (
        "POST /v1/clicks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _http_body(reader: asyncio.StreamReader) -> Json:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    body: Json = json.loads(await reader.readexactly(length))
    return body


def spread(values: Iterable[float], form: str = ",.0f") -> str:
    """Median, and the least and greatest."""
    found = sorted(values)
    return f"{statistics.median(found):{form}} ({found[0]:{form}}–{found[-1]:{form}})"


async def run(options: argparse.Namespace) -> int:
    table = Table("fsync", "bare EVALSHA", "Ledger.charge", "ratio", "POST /v1/clicks")
    is_reached = True
    with Progress(console=Console(stderr=True), transient=True) as progress:
        steps = 2 * options.rounds * len(FSYNC)
        task = progress.add_task("settling", total=steps)
        for fsync in FSYNC:
            measured = await time_charges(fsync, options, lambda: progress.advance(task))
            http = await time_http(fsync, options, lambda: progress.advance(task))
            ratios = [charged / bare for bare, charged in measured]
            is_reached &= statistics.median(ratios) >= GOAL
            bares, charges = zip(*measured, strict=True)
            table.add_row(
                fsync, spread(bares), spread(charges), spread(ratios, ".2f"), spread(http)
            )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"a second, on {options.connections} connections; median (least–greatest) of"
        f" {options.rounds} rounds; the goal is a ratio of {GOAL}"
    )
    return 0 if is_reached else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clicks", type=int, default=5_000, help="in a round, without HTTP")
    parser.add_argument("--http-clicks", type=int, default=1_000, help="in a round, over HTTP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=50)
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
