"""Kill the service and its Valkey at random points of a running load; look for lost money.

    python -m loadtest.crash --rounds 50

Each round asks for answers and clicks on their ads, many at once, sends SIGKILL to the service, to
Valkey or to both, starts what is down, and compares what the clients were told with the ledger as
it stands in the store:

* no click that was acknowledged as charged is missing, or has another amount or id;
* no ad of an answer is charged twice, and none that no client clicked on;
* what is taken from budgets is what the ledger says, and no budget is overspent;
* a repeated click gets the charge that it had, and a click in doubt can be settled by repeating it;
* the service's own check agrees.

Exits with 1 when one of these is broken, and keeps the state directory. Processes are killed, not
the machine: what a power failure leaves depends on the disk beneath `fsync`. What was counted goes
to `loadtest/RESULTS.md`.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from loadtest.bench.results import Result, Table, save
from loadtest.own_service import NAMESPACE, OwnService, run_fake_vllm

TARGETS = ("service", "valkey", "both")
_TIGHT_AD, _TIGHT_BUDGET = "Ad-0", 20
"""Whose budget is soon at its end; in units."""

_ADS = 5
_AGAIN = 50
"""Clicks of earlier rounds that are repeated in each round."""

_NOT_CHARGED = frozenset({"duplicate", "budget_exhausted", "invalid"})
"""`invalid`: the store was away when the answer was to be recorded, so that it is never billed."""

_SECONDS_OF_LOAD = (0.1, 1.0)
Json = dict[str, Any]
Place = tuple[str, str]
"""Response id and ad id: what may be charged once."""


@dataclass(slots=True)
class Click:
    """An ad of an answer as its client knows it. `told`: the charge that was acknowledged."""

    token: str
    price_micros: int
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    is_sent: bool = False
    told: Json | None = None


class Journal:
    """All that the clients know, and all that was found to be wrong."""

    def __init__(self) -> None:
        self.clicks: dict[Place, Click] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def take(self, place: Place, answer: Json) -> None:
        """Note what a click was answered: a charge, once, and the same whenever it is repeated."""
        click, state = self.clicks[place], answer["state"]
        self.counts[state] += 1
        if state == "charged" and click.told:
            self.wrong.append(f"{place}: charged again after {click.told}")
        if state == "charged" or answer["replayed"]:
            charge = {"charge_id": answer["charge_id"], "price": answer["amount_micros"]}
            if charge["price"] != click.price_micros:
                self.wrong.append(f"{place}: {charge} for a bid of {click.price_micros}")
            if charge != (click.told or charge):
                self.wrong.append(f"{place}: told {click.told}, then {charge}")
            click.told = charge
        elif state not in _NOT_CHARGED or (state == "invalid" and click.told):
            self.wrong.append(f"{place}: a good token was answered {state}")

    def compare(self, ledger: Sequence[Json], spent: Mapping[str, int]) -> None:
        """Check the ledger against what was told, and the budgets against the ledger."""
        by_place: dict[Place, Json] = {}
        taken: Counter[str] = Counter()
        for entry in ledger:
            place = (entry["response_id"], entry["ad_id"])
            taken[entry["ad_id"]] += entry["price"]
            click = self.clicks.get(place)
            if place in by_place:
                self.wrong.append(f"{place}: in the ledger twice")
            if click is None or not click.is_sent:
                self.wrong.append(f"{place}: in the ledger, but nobody clicked")
            by_place[place] = {"charge_id": entry["charge_id"], "price": entry["price"]}
        for place, click in self.clicks.items():
            if click.told and by_place.get(place) != click.told:
                self.wrong.append(f"{place}: told {click.told}, ledger has {by_place.get(place)}")
        if spent.get(_TIGHT_AD, 0) > _TIGHT_BUDGET * 1_000_000:
            self.wrong.append(f"{_TIGHT_AD}: {spent[_TIGHT_AD]} taken from {_TIGHT_BUDGET} units")
        if dict(taken) != dict(spent):
            self.wrong.append(f"budgets: {dict(spent)} taken, {dict(taken)} in the ledger")


async def load(http: httpx.AsyncClient, journal: Journal, rng: random.Random) -> None:
    """Ask and click, for ever; what fails is in doubt and left so."""
    while True:
        bids = {f"Ad-{number}": rng.randint(1, 5_000_000) for number in range(_ADS)}
        candidates = [{"ad_id": ad_id, "bid": bid / 1_000_000} for ad_id, bid in bids.items()]
        ask = {"query": "Which boots?", "candidates": candidates, "max_ads": 3}
        try:
            response = await http.post("/respond", json=ask)
            if response.status_code != httpx.codes.OK:
                await asyncio.sleep(0.01)
                continue
            answer = response.json()
            journal.counts["answers"] += 1
            places = [(answer["response_id"], ad["ad_id"]) for ad in answer["ads"]]
            for place, ad in zip(places, answer["ads"], strict=True):
                token = ad["click_url"].rpartition("/")[2]
                journal.clicks[place] = Click(token, bids[place[1]])
            # the same ad twice at once, now and then, as by a double click
            twice = [place for place in places if rng.random() < 0.2]
            await asyncio.gather(
                *(click(http, journal, place) for place in places),
                *(click(http, journal, place, event_id=uuid.uuid4().hex) for place in twice),
            )
        except httpx.TransportError:
            await asyncio.sleep(0.01)


async def click(
    http: httpx.AsyncClient, journal: Journal, place: Place, event_id: str | None = None
) -> None:
    """Report one click; where no answer comes, it stays in doubt."""
    clicked = journal.clicks[place]
    clicked.is_sent = True
    body = {"token": clicked.token, "client_event_id": event_id or clicked.event_id}
    try:
        response = await http.post("/v1/clicks", json=body)
    except httpx.TransportError:
        journal.counts["in doubt"] += 1
        return
    if response.status_code == httpx.codes.OK:
        journal.take(place, response.json())
    elif response.status_code >= 500:
        journal.counts["in doubt"] += 1
    else:
        journal.wrong.append(f"{place}: HTTP {response.status_code} for a good token")


async def run_round(
    service: OwnService, journal: Journal, rng: random.Random, clickers: int
) -> str:
    """Load, kill, start again, repeat what is in doubt and some of what is not; what was killed."""
    target = rng.choice(TARGETS)
    async with httpx.AsyncClient(base_url=service.url, timeout=10) as http:
        loads = [asyncio.create_task(load(http, journal, rng)) for _ in range(clickers)]
        await asyncio.sleep(rng.uniform(*_SECONDS_OF_LOAD))
        if target in {"valkey", "both"}:
            service.kill_valkey()
        if target in {"service", "both"}:
            await service.kill()
        await asyncio.sleep(rng.uniform(0, 0.1))  # clients go on while it is down
        for task in loads:
            task.cancel()
        ended = await asyncio.gather(*loads, return_exceptions=True)
        journal.wrong += [repr(e) for e in ended if isinstance(e, Exception)]
    await service.start()
    await compare(service, journal)
    async with httpx.AsyncClient(base_url=service.url, timeout=10) as http:
        sent = [place for place, clicked in journal.clicks.items() if clicked.is_sent]
        doubtful = [place for place in sent if journal.clicks[place].told is None]
        again = rng.sample(sent, min(_AGAIN, len(sent))) + doubtful[-_AGAIN:]
        await asyncio.gather(*(click(http, journal, place) for place in dict.fromkeys(again)))
    await compare(service, journal)
    return target


async def compare(service: OwnService, journal: Journal) -> None:
    """Read ledger and budgets from the store itself, at one moment, and check them."""
    redis: Any = Redis(unix_socket_path=str(service.valkey_socket), decode_responses=True)
    async with redis, redis.pipeline(transaction=True) as pipeline:
        pipeline.xrange(f"{{{NAMESPACE}}}:ledger")
        pipeline.hgetall(f"{{{NAMESPACE}}}:spent:total")
        entries, spent = await pipeline.execute()
    ledger = [{**entry, "price": int(entry["price"])} for _, entry in entries]
    journal.compare(ledger, {ad_id: int(micros) for ad_id, micros in spent.items()})


async def verify(service: OwnService, journal: Journal) -> None:
    """The service's own check, as a user runs it."""
    environment = {**service.environment, "LLM_AUCTION_URL": service.url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.cli", "ledger", "verify"),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate()
    if process.returncode != 0:
        journal.wrong.append(f"ledger verify: {told.decode(errors='replace')}")


async def enter_ads(service: OwnService) -> None:
    """A few ads without limits, and one whose budget is soon at its end."""
    async with httpx.AsyncClient(base_url=service.url) as http:
        for number in range(_ADS):
            ad_id = f"Ad-{number}"
            ad = {
                "title": f"Boots {number}",
                "category": "boots",
                "landing_url": "https://boots.example/",
                "advertiser_id": f"adv-{number % 2}",
                "budget": {"total": _TIGHT_BUDGET} if ad_id == _TIGHT_AD else {},
            }
            (await http.put(f"/ads/{ad_id}", json=ad)).raise_for_status()


async def run(options: argparse.Namespace) -> int:
    rng, journal, killed = random.Random(options.seed), Journal(), Counter[str]()
    state_dir = Path(tempfile.mkdtemp(prefix="llm-auction-crash-"))
    begun = time.monotonic()
    async with run_fake_vllm(ads=3) as engine_url:
        service = OwnService(state_dir, engine_url, LLM_AUCTION_STORE__FSYNC="always")
        try:
            await service.start()
            await enter_ads(service)
            with Progress(console=Console(stderr=True)) as progress:
                task = progress.add_task("killing", total=options.rounds)
                while killed.total() < options.rounds and not journal.wrong:
                    if time.monotonic() - begun > options.max_seconds:
                        break
                    killed[await run_round(service, journal, rng, options.clickers)] += 1
                    await verify(service, journal)
                    progress.advance(task)
        finally:
            await service.stop()
    if not any(clicked.told for clicked in journal.clicks.values()):
        journal.wrong.append("nothing was ever charged")
    result = found(journal, killed, time.monotonic() - begun)
    console = Console(highlight=False)
    console.print(Markdown(result.markdown()))
    for wrong in journal.wrong[:20]:
        console.print(wrong, style="red", markup=False)
    if options.save:
        save(result)
    if journal.wrong:
        Console(stderr=True).print(f"state kept in {state_dir}", highlight=False)
    else:
        shutil.rmtree(state_dir, ignore_errors=True)
    return 0 if not journal.wrong and killed.total() == options.rounds else 1


def found(journal: Journal, killed: Counter[str], seconds: float) -> Result:
    """What was killed, what clients were told, and how much of it was wrong."""
    charges = sum(click.told is not None for click in journal.clicks.values())
    rows = [
        *([f"rounds that killed {target}", f"{killed[target]}"] for target in TARGETS),
        *([what, f"{count:,}"] for what, count in sorted(journal.counts.items())),
        ["charges acknowledged", f"{charges:,}"],
        ["wrong", f"{len(journal.wrong)}"],
    ]
    text = (
        f"SIGKILL to the service, its Valkey or both at random points of {killed.total()} loads, in"
        f" {seconds:.0f} s; after each, the ledger in the store against all that clients were told."
    )
    command = f"python -m loadtest.crash --rounds {killed.total()}"
    return Result("crash", "Kills under load", command, text, [Table(["what", "count"], rows)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clickers", type=int, default=16, help="users at once")
    parser.add_argument("--max-seconds", type=float, default=1_200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-save", dest="save", action="store_false", help="only print")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
