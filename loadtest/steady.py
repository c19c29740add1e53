"""Keep a service busy for a while; report answers a second, and every failure with its time.

    python -m loadtest.steady --seconds 30 --concurrency 16

Each of the clients asks, waits for the answer, reports clicks on some of its ads and asks again, so
the load is what the service makes of it: for seeing throughput grow with replicas, and what their
loss or replacement costs. Exits with 1 when a request failed.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress

ASK = {
    "query": "Which running shoes are good for a beginner?",
    "candidates": [{"ad_id": "Ad-1001", "bid": 1.25}, {"ad_id": "Ad-1020", "bid": 0.8}],
}


@dataclass(slots=True)
class Tally:
    """What came back. failures: second since the start, and what it was. clicks: by state."""

    seconds: list[float] = field(default_factory=list)
    clicks: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[float, str]] = field(default_factory=list)


async def keep_busy(
    client: httpx.AsyncClient,
    ask: dict[str, Any],
    clients: int,
    until: float,
    click_share: float = 0,
) -> Tally:
    """Ask with `clients` at once until the monotonic time `until`, and await the last answers.

    click_share: of the ads shown, 0 to 1.
    """
    tally, begun, rng = Tally(), time.monotonic(), random.Random(1)

    async def send(path: str, body: dict[str, Any]) -> Any:
        """The answer, or None where the request failed."""
        try:
            response = await client.post(path, json=body)
        except httpx.TransportError as error:
            what = type(error).__name__
        else:
            if response.status_code == httpx.codes.OK:
                return response.json()
            what = _problem(response)
        tally.failures.append((time.monotonic() - begun, f"{path}: {what}"))
        return None

    async def work() -> None:
        while (asked := time.monotonic()) < until:
            if (answer := await send("/respond", ask)) is None:
                continue
            tally.seconds.append(time.monotonic() - asked)
            for ad in answer["ads"]:
                if rng.random() < click_share:
                    token = ad["click_url"].rpartition("/")[2]
                    if (click := await send("/v1/clicks", {"token": token})) is not None:
                        tally.clicks[click["state"]] += 1

    await asyncio.gather(*(work() for _ in range(clients)))
    return tally


def _problem(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {response.json()['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.text[:80]!r}"


async def run(options: argparse.Namespace) -> int:
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    limits = httpx.Limits(max_connections=options.concurrency)
    begun = time.monotonic()
    async with httpx.AsyncClient(
        base_url=options.url, headers=headers, timeout=300, limits=limits
    ) as client:
        ask = ASK | {"max_tokens": options.max_tokens}
        until = begun + options.seconds
        busy = keep_busy(client, ask, options.concurrency, until, options.click_share)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("asking", total=options.seconds)
            working = asyncio.create_task(busy)
            while not working.done():
                await asyncio.wait({working}, timeout=0.5)
                progress.update(task, completed=time.monotonic() - begun)
            tally = await working
    report(tally, time.monotonic() - begun)
    return 1 if tally.failures else 0


def report(tally: Tally, lasted_s: float) -> None:
    console, done = Console(highlight=False), sorted(tally.seconds)
    console.print(f"{len(done)} answers in {lasted_s:.1f} s: {len(done) / lasted_s:.2f} a second")
    if done:
        p50, p99 = done[len(done) // 2], done[int(len(done) * 0.99)]
        console.print(f"seconds: p50 {p50:.2f}, p99 {p99:.2f}, longest {done[-1]:.2f}")
    console.print(f"clicks: {dict(tally.clicks) or 'none'}")
    console.print(f"failed: {dict(Counter(what for _, what in tally.failures)) or 'none'}")
    for second, what in tally.failures[:20]:
        console.print(f"  at {second:.1f} s: {what}", markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--click-share", type=float, default=0, help="of the ads shown, 0 to 1")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
