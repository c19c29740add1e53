"""Show that reports take no longer when the ledger is long.

    python -m loadtest.big_ledger --entries 1000000

Starts a service, writes made-up charges straight into its Valkey, with the counters that go with
them, and times `/reports` as the ledger grows. Needs about 120 bytes of memory an entry. Exits with
1 where the longest ledger makes a report more than twice as slow as the shortest.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.own_service import NAMESPACE, OwnService, run_fake_vllm

_BATCH = 5_000
_PRICE_MICROS = 250_000
_REPORTS = ("ad", "advertiser", "day")
_TIMES = 30

# Within the server, since nothing outside it writes a million entries in seconds.
_CHARGE = """
local first, count, day, price = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local ads, advertisers = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
local taken = {}
for i = first, first + count - 1 do
  local n = i % #ads + 1
  redis.call('XADD', KEYS[1], '*', 'charge_id', 'chg_' .. i,
    'response_id', string.format('resp_%032x', i), 'ad_id', ads[n],
    'advertiser_id', advertisers[n], 'event', 'click', 'price', price, 'bid', price,
    'position', 0, 'day', day, 'at', 1700000000000 + i)
  taken[n] = (taken[n] or 0) + 1
end
for n, clicks in pairs(taken) do
  local micros = string.format('%d', clicks * price)
  redis.call('HINCRBY', KEYS[2], ads[n], micros)
  redis.call('HINCRBY', KEYS[3], ads[n], micros)
  redis.call('HINCRBY', KEYS[4], advertisers[n], micros)
  redis.call('HINCRBY', KEYS[5], advertisers[n], micros)
  redis.call('HINCRBY', KEYS[6], 'clicks\\31' .. ads[n], clicks)
  redis.call('HINCRBY', KEYS[6], 'shown\\31' .. ads[n], clicks * 20)
  redis.call('HINCRBY', KEYS[6], 'eligible\\31' .. ads[n], clicks * 100)
  redis.call('HINCRBY', KEYS[6], 'spend\\31' .. ads[n], micros)
end
"""


async def fill(redis: Any, ads: list[dict[str, Any]], first: int, until: int) -> None:
    """Append charges number `first` to `until` of today to the ledger."""
    day = datetime.now(UTC).date().isoformat()
    names = (
        "ledger", "spent:total", f"spent:{day}", "spent:advertisers:total",
        f"spent:advertisers:{day}", f"count:{day}",
    )  # fmt: skip
    keys = [f"{{{NAMESPACE}}}:{name}" for name in names]
    ad_ids = json.dumps([ad["ad_id"] for ad in ads])
    advertisers = json.dumps([ad["advertiser_id"] for ad in ads])
    charge = redis.register_script(_CHARGE)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"charging up to {until:,}", total=until - first)
        for start in range(first, until, _BATCH):
            count = min(_BATCH, until - start)
            await charge(keys, [start, count, day, _PRICE_MICROS, ad_ids, advertisers])
            progress.advance(task, count)


async def time_reports(http: httpx.AsyncClient, entries: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of report; checks that it tells the whole ledger's clicks."""
    times: dict[str, list[float]] = {by: [] for by in _REPORTS}
    for _ in range(_TIMES):
        for by, spent_ms in times.items():
            begun = time.perf_counter()
            report = (await http.get("/reports", params={"by": by})).raise_for_status().json()
            spent_ms.append((time.perf_counter() - begun) * 1_000)
            clicks = sum(row["clicks"] for row in report["rows"])
            if clicks != entries:
                raise RuntimeError(f"{clicks} clicks reported by {by}, {entries} in the ledger")
    return times


async def run(options: argparse.Namespace) -> int:
    table = Table("entries", "Valkey's memory", *(f"by {by}: p50, max" for by in _REPORTS))
    medians: list[float] = []
    with tempfile.TemporaryDirectory(prefix="llm-auction-ledger-") as directory:
        async with run_fake_vllm(ads=1) as engine_url:
            service = OwnService(Path(directory), engine_url)
            try:
                await service.start()
                redis: Any = Redis(unix_socket_path=str(service.valkey_socket))
                async with redis, httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                    await redis.config_set("appendonly", "no")  # nothing here is to be kept
                    ads = (await http.get("/ads", params={"limit": 1_000})).json()["ads"]
                    filled = 0
                    for entries in (options.entries // 100, options.entries // 10, options.entries):
                        await fill(redis, ads, filled, entries)
                        filled = entries
                        times = await time_reports(http, entries)
                        memory = (await redis.info("memory"))["used_memory_human"]
                        cells = (
                            f"{statistics.median(t):.1f}, {max(t):.1f} ms" for t in times.values()
                        )
                        table.add_row(f"{entries:,}", memory, *cells)
                        medians.append(sum(statistics.median(t) for t in times.values()))
            finally:
                await service.stop()
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{medians[-1] / medians[0]:.2f} times as long at the end as at the start")
    return 0 if medians[-1] <= 2 * medians[0] else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
