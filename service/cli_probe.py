"""`llm-auction probe`: how an ad's exposure in the running service follows from its bid.

The same queries with the same seeds are asked at each bid, so that only the bid differs. Probes are
marked: no receipt, click or budget comes of them.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.cli_client import HERE, Key, Url, checked

_Z_95 = 1.959964
_BAR = 40
_TRIES = 20
_TIMEOUT_S = 600
Json = dict[str, Any]

Ad = Annotated[str, typer.Option("--ad", help="The ad whose bid is varied.")]
Bids = Annotated[str, typer.Option(help="Bids to try, e.g. 1,10,100.")]
Queries = Annotated[
    Path,
    typer.Option(
        help="A query a line, or JSON lines with a `query` each.", exists=True, dir_okay=False
    ),
]
Candidates = Annotated[
    Path | None,
    typer.Option(
        help="JSON file with a list of {ad_id, bid}: the others.", exists=True, dir_okay=False
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="Answers to each query at each bid.")]
MaxAds = Annotated[int | None, typer.Option(help="The most ads in an answer.")]
MaxTokens = Annotated[int | None, typer.Option(help="The longest answer.")]
Seed = Annotated[int, typer.Option(help="Another one draws other answers.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Answers in the making at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@dataclass(slots=True)
class Exposure:
    """What became of the ad at one bid. `excluded`: how often by reason; it could not be shown."""

    bid: Decimal
    answers: int = 0
    shown: int = 0
    excluded: dict[str, int] = field(default_factory=dict)

    def add(self, answer: Mapping[str, Any], ad_id: str) -> None:
        """Count one answer of the service."""
        self.answers += 1
        self.shown += any(ad["ad_id"] == ad_id for ad in answer["ads"])
        for candidate in answer["excluded"]:
            if candidate["ad_id"] == ad_id:
                reason = candidate["reason"]
                self.excluded[reason] = self.excluded.get(reason, 0) + 1

    def as_json(self) -> Json:
        low, high = wilson(self.shown, self.answers)
        return {
            "bid": str(self.bid),
            "answers": self.answers,
            "shown": self.shown,
            "exposure": self.shown / self.answers,
            "interval_95": [low, high],
            "excluded": self.excluded,
        }


def wilson(successes: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share, inside 0..1 also at its ends; z: 1.96 for 95 %.

    trials: at least 1.
    """
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    reach = z / scale * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    # at the ends the bounds are 0 and 1 exactly, which rounding would miss
    low = 0.0 if successes == 0 else middle - reach
    high = 1.0 if successes == trials else middle + reach
    return low, high


def probe(
    ad: Ad,
    bids: Bids,
    queries: Queries,
    candidates: Candidates = None,
    repeats: Repeats = 1,
    max_ads: MaxAds = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 1,
    concurrency: Concurrency = 4,
    as_json: AsJson = False,
    url: Url = HERE,
    api_key: Key = None,
) -> None:
    """Show how an ad's exposure follows from its bid: the same queries, one bid varied.

    Nothing is charged, counted or kept. With API keys one with the scope admin is needed.

    llm-auction probe --ad Ad-1001 --bids 0.5,1,2,4 --queries queries.txt
    """
    tried = [Exposure(bid) for bid in _bids(bids)]
    others = [other for other in _others(candidates) if other["ad_id"] != ad]
    wished = {"max_ads": max_ads, "max_tokens": max_tokens}
    common = {name: value for name, value in wished.items() if value is not None}
    asks: list[tuple[Exposure, Json]] = []
    for number, (query, _) in enumerate(product(_queries(queries), range(repeats))):
        body = {"query": query, "seed": seed + number, "probe": True, **common}
        for exposure in tried:
            bidder = {"ad_id": ad, "bid": float(exposure.bid)}
            asks.append((exposure, {**body, "candidates": [*others, bidder]}))
    with _reaching(url):
        asyncio.run(_ask_all(url, api_key, asks, ad, concurrency))
    if as_json:
        rows = [exposure.as_json() for exposure in tried]
        typer.echo(json.dumps({"ad_id": ad, "exposure": rows}, indent=2))
    else:
        _show(ad, tried)


async def _ask_all(
    url: str, api_key: str | None, asks: Sequence[tuple[Exposure, Json]], ad: str, concurrency: int
) -> None:
    """Ask all and count the answers in their exposures; the first refusal ends the command."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    left = iter(asks)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Asking", total=len(asks))
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S) as client:

            async def work() -> None:
                for exposure, body in left:
                    exposure.add((await _ask(client, body)).json(), ad)
                    progress.advance(task)

            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(asks))):
                    workers.create_task(work())


async def _ask(client: httpx.AsyncClient, body: Json) -> httpx.Response:
    """The answer; a service that is full is asked again when it says so."""
    for _ in range(_TRIES):
        response = await client.post("/respond", json=body)
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
    return checked(response)


def _show(ad: str, tried: Sequence[Exposure]) -> None:
    table = Table("bid", "answers", "shown", "exposure", "95 % interval", "", "excluded")
    for exposure in tried:
        low, high = wilson(exposure.shown, exposure.answers)
        share = exposure.shown / exposure.answers
        reasons = ", ".join(f"{reason} {n}" for reason, n in exposure.excluded.items())
        counts = (str(exposure.bid), str(exposure.answers), str(exposure.shown))
        bar = "█" * round(_BAR * share)
        table.add_row(*counts, f"{share:.1%}", f"{low:.1%} to {high:.1%}", bar.ljust(_BAR), reasons)
    out = Console(highlight=False)
    out.print(f"Exposure of {ad} by its bid, all else equal")
    out.print(table)


def _bids(text: str) -> list[Decimal]:
    try:
        bids = sorted({Decimal(bid.strip()) for bid in text.split(",")})
    except InvalidOperation as wrong:
        raise typer.BadParameter("must be amounts such as 1,2.5,10", param_hint="--bids") from wrong
    if not all(bid.is_finite() and bid > 0 for bid in bids):
        raise typer.BadParameter("must be over 0", param_hint="--bids")
    return bids


def _queries(file: Path) -> list[str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        queries = [json.loads(line)["query"] if line.startswith("{") else line for line in lines]
    except (ValueError, KeyError) as wrong:
        raise typer.BadParameter(
            'has a JSON line without a "query"', param_hint="--queries"
        ) from wrong
    if not queries:
        raise typer.BadParameter("holds no query", param_hint="--queries")
    return queries


def _others(file: Path | None) -> list[Json]:
    if file is None:
        return []
    try:
        others = json.loads(file.read_text(encoding="utf-8"))
        return [{"ad_id": str(other["ad_id"]), "bid": float(other["bid"])} for other in others]
    except (ValueError, KeyError, TypeError) as wrong:
        raise typer.BadParameter(
            "must be a JSON list of {ad_id, bid}", param_hint="--candidates"
        ) from wrong


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """The first exception of the workers ends the command, with a sentence if it is the network."""
    try:
        yield
    except (BaseExceptionGroup, httpx.InvalidURL) as failed:
        cause = _first(failed)
        if not isinstance(cause, httpx.HTTPError | httpx.InvalidURL):
            raise cause from None
        errors = Console(stderr=True, highlight=False)
        errors.print(f"[bold red]No answer from {url}[/]: {cause}. Is the service running?")
        raise typer.Exit(1) from cause


def _first(failed: BaseException) -> BaseException:
    return _first(failed.exceptions[0]) if isinstance(failed, BaseExceptionGroup) else failed
