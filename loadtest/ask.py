"""Ask a running service many questions at once; check every answer; report where time went.

    python -m loadtest.ask --requests 200 --concurrency 8 --candidates 100

Queries come from a JSON-lines file with a `query` in each row, or from a few built-in ones;
candidates are drawn from the service's own catalogue with fresh bids. Exits with 1 when any
answer breaks the contract.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

QUERIES = (
    "Which running shoes are good for a beginner?",
    "How do I keep my houseplants alive while I travel?",
    "What should I cook for four people on a weeknight?",
    "Is it worth insuring an old car?",
    "How can I learn Spanish in three months?",
)
ENGINE_STAGES = ("queue", "prefill", "decode")
Json = dict[str, Any]


async def catalogue(client: httpx.AsyncClient) -> list[Json]:
    """All active ads of the service."""
    ads: list[Json] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (
            await client.get(
                "/ads", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        ads += page["ads"]
        cursor = page["cursor"]
    return [ad for ad in ads if ad["status"] == "active"]


def faults_of(ask: Json, response: httpx.Response, titles: dict[str, str]) -> list[str]:
    """What is wrong with a response, in words; empty when the contract holds."""
    if response.status_code != 200:
        return [f"status {response.status_code}"]
    return contract_breaks(ask, response.json(), titles)


def contract_breaks(ask: Json, body: Json, titles: dict[str, str]) -> list[str]:
    """What is wrong with an answer to `ask`, in words."""
    bids = {c["ad_id"]: c["bid"] for c in ask["candidates"]}
    # an answer that ends at its limit may end within a marker, which is then no insertion
    is_cut = body["finish_reason"] in {"length", "deadline"}
    faults = (fault["kind"] for fault in body["faults"])
    wrong = [f"fault {kind}" for kind in faults if not (kind == "truncated" and is_cut)]
    for ad in body["ads"]:
        marker = body["answer"][ad["span"]["start"] : ad["span"]["end"]]
        if marker != f"@{titles[ad['ad_id']]}@[{ad['ad_id']}]":
            wrong.append("marker is not title and id")
        if ad["charge"]["price_micros"] != round(bids[ad["ad_id"]] * 1_000_000):
            wrong.append("price is not the bid")
    stages = sum(ms for name, ms in body["latency_ms"].items() if name not in {"total", "ttft"})
    if stages > body["latency_ms"]["total"] + 1:
        wrong.append("stages exceed the total")
    return wrong


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (over 0, up to 1) of all do not exceed."""
    return sorted(values)[max(0, -(-round(share * 1_000) * len(values) // 1_000) - 1)]


async def run(options: argparse.Namespace) -> int:
    rng = random.Random(options.seed)
    queries = list(QUERIES)
    if options.queries:
        queries = [json.loads(line)["query"] for line in options.queries.open(encoding="utf-8")]
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    limits = httpx.Limits(max_connections=options.concurrency + 1)
    async with httpx.AsyncClient(
        base_url=options.url, headers=headers, timeout=600, limits=limits
    ) as client:
        ads = await catalogue(client)
        titles = {ad["ad_id"]: ad["title"] for ad in ads}
        pool = rng.sample(ads, min(len(ads), options.candidates)) if options.recurring else ads
        asks = [
            make_ask(rng, queries[i % len(queries)], pool, options) for i in range(options.requests)
        ]
        slots = asyncio.Semaphore(options.concurrency)

        async def send(ask: Json) -> tuple[Json, httpx.Response]:
            async with slots:
                return ask, await client.post("/respond", json=ask)

        sent = [asyncio.create_task(send(ask)) for ask in asks]
        answers = [
            await done
            for done in track(
                asyncio.as_completed(sent),
                total=len(sent),
                description="asking",
                console=Console(stderr=True),
            )
        ]
    return report(answers, titles)


def make_ask(rng: random.Random, query: str, pool: list[Json], options: argparse.Namespace) -> Json:
    chosen = rng.sample(pool, min(len(pool), options.candidates))
    bids = random.Random(options.seed) if options.recurring else rng
    if options.recurring:
        chosen.sort(key=lambda ad: str(ad["ad_id"]))
    return {
        "query": query,
        "candidates": [{"ad_id": ad["ad_id"], "bid": bids.randint(1, 100)} for ad in chosen],
        "max_tokens": rng.randint(options.max_tokens // 2, options.max_tokens * 3 // 2),
        "seed": rng.randrange(1 << 31),
    }


def report(answers: list[tuple[Json, httpx.Response]], titles: dict[str, str]) -> int:
    console = Console()
    good = [response.json() for _, response in answers if response.status_code == 200]
    wrong = Counter(w for ask, response in answers for w in faults_of(ask, response, titles))
    statuses = Counter(response.status_code for _, response in answers)
    console.print(f"{len(answers)} answers, statuses {dict(statuses)}")
    table = Table("ms", "p50", "p90", "p99", "max")
    latencies = [body["latency_ms"] for body in good]
    series = {name: [ms[name] or 0.0 for ms in latencies] for name in (latencies or [{}])[0]}
    series["total − engine"] = [
        ms["total"] - sum(ms[stage] for stage in ENGINE_STAGES) for ms in latencies
    ]
    for name, values in series.items():
        cells = [percentile(values, share) for share in (0.5, 0.9, 0.99, 1)]
        table.add_row(name, *(f"{cell:,.2f}" for cell in cells))
    console.print(table)
    inserted = Counter(len(body["ads"]) for body in good)
    tokens = sum(body["usage"]["completion_tokens"] for body in good)
    console.print(
        f"{tokens} tokens written; answers by ads inserted: {dict(sorted(inserted.items()))}"
    )
    console.print(f"contract broken: {dict(wrong) or 'never'}")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key")
    parser.add_argument("--queries", type=Path, help="JSON lines with a `query` each")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument(
        "--recurring",
        action="store_true",
        help="the same ads at the same bids in every request, so that the prefix cache serves them",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=32,
        help="mean of the answers' limits, which vary by a half: as in real traffic, requests do"
        " not all come and go together",
    )
    parser.add_argument("--seed", type=int, default=1)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
