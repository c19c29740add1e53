"""Checks the ledger against the budgets, from its first entry to its last.

The ledger is read a page at a time, so that memory grows with the number of ads, advertisers and
days, not of charges; and while charges go on: the last few entries are read together with what was
taken from the budgets, at one moment. Budgets are reckoned again, entry by entry, against the
limits that each entry was charged under: a limit that was lowered since breaks nothing.
"""

from collections import Counter, defaultdict
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import IO, Any

from redis.asyncio import Redis

from service.auction.money import to_text
from service.store.connection import Store
from service.store.ledger import Ledger, LedgerEntry, as_entry

MAX_EXAMPLES = 20
_BUCKETS = 64
_PAGE = 1_000
_DIGEST_BYTES = 16

FindMissing = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of some response ids have no receipt."""


class Invariant(StrEnum):
    """What must hold of every ledger."""

    ADS_BALANCE = "ads_balance"
    ADVERTISERS_BALANCE = "advertisers_balance"
    CHARGED_ONCE = "charged_once"
    WITHIN_BUDGET = "within_budget"
    WITHIN_BID = "within_bid"
    RECEIPTED = "receipted"


@dataclass(slots=True)
class Finding:
    """How often an invariant was checked, how often it is broken, and some examples."""

    checked: int = 0
    broken: int = 0
    examples: list[str] = field(default_factory=list)

    def breaks(self, example: str) -> None:
        """Note that it is broken here."""
        self.broken += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a ledger of `entries` charges, of `sum_micros` in all."""

    entries: int
    sum_micros: int
    findings: dict[Invariant, Finding]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.broken for finding in self.findings.values())


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """How receipts are looked for, and for which charges: those at or after `since_ms` (epoch)."""

    find_missing: FindMissing
    since_ms: int


async def verify(
    store: Store,
    namespace: str,
    receipts: ReceiptCheck | None = None,
    progress: Callable[[int], None] = lambda entries: None,
) -> Verification:
    """Check every invariant; without `receipts` all but that one. Raises StoreUnavailable.

    progress: told from time to time how many entries have been read.
    """
    with ExitStack() as stack:
        books = _Books(_Places(stack))
        async for page in _pages(store, namespace, books):
            for entry in page:
                books.take(entry)
            if receipts is not None:
                await _check_receipts(page, receipts, books.findings[Invariant.RECEIPTED])
            progress(books.entries)
        books.close()
        if repeated := books.places.repeated():
            await _name_repeated(Ledger(store, namespace), books, repeated)
        return Verification(books.entries, books.ads.total.total(), books.findings)


class _Sums:
    """What was charged to each ad, or to each advertiser: in all, and by day."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.by_day: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, name: str, day: str, price_micros: int) -> tuple[int, int]:
        """Add a charge; the sums in all and of the day with it."""
        self.total[name] += price_micros
        self.by_day[day][name] += price_micros
        return self.total[name], self.by_day[day][name]

    def compare(self, kind: str, taken: Mapping[str, Mapping[str, int]], finding: Finding) -> None:
        """Compare the sums with what was taken, by the names of its keys."""
        spans = [("total", self.total), *sorted(self.by_day.items())]
        for span, sums in spans:
            gone = taken[f"{kind}{span}"]
            for name in sorted(sums.keys() | gone.keys()):
                finding.checked += 1
                charged, away = sums[name], gone.get(name, 0)
                if charged != away:
                    finding.breaks(
                        f"{name}, {span}: {to_text(charged)} in the ledger, {to_text(away)} taken"
                    )


class _Books:
    """Sums kept beside the ledger while it is read, and what they are in the store."""

    def __init__(self, places: "_Places") -> None:
        self.places = places
        self.entries = 0
        self.findings = {invariant: Finding() for invariant in Invariant}
        self.ads, self.advertisers = _Sums(), _Sums()
        self.taken: dict[str, dict[str, int]] = {}

    @property
    def days(self) -> set[str]:
        """The days that were charged on, so far."""
        return set(self.ads.by_day)

    def take(self, entry: LedgerEntry) -> None:
        """Add an entry, and check what can be told from it and those before it."""
        price, bid = entry.price_micros, entry.bid_micros
        self.entries += 1
        self.places.add(entry.response_id, entry.ad_id)
        if not 0 < price <= bid:
            self.findings[Invariant.WITHIN_BID].breaks(
                f"{entry.charge_id}: {to_text(price)} for a bid of {to_text(bid)}"
            )
        sums = (
            *self.ads.add(entry.ad_id, entry.day, price),
            *self.advertisers.add(entry.advertiser_id, entry.day, price),
        )
        for taken, limit in zip(sums, entry.limits_micros, strict=True):
            if limit is not None and taken > limit:
                self.findings[Invariant.WITHIN_BUDGET].breaks(
                    f"{entry.charge_id}: {to_text(taken)} taken from {to_text(limit)} of"
                    f" {entry.ad_id} or {entry.advertiser_id}"
                )
                break

    def close(self) -> None:
        """Compare the sums with what was taken from the budgets."""
        findings = self.findings
        for invariant in (Invariant.CHARGED_ONCE, Invariant.WITHIN_BID, Invariant.WITHIN_BUDGET):
            findings[invariant].checked = self.entries
        self.ads.compare("", self.taken, findings[Invariant.ADS_BALANCE])
        self.advertisers.compare(
            "advertisers:", self.taken, findings[Invariant.ADVERTISERS_BALANCE]
        )


async def _pages(
    store: Store, namespace: str, books: _Books
) -> AsyncGenerator[Sequence[LedgerEntry]]:
    """All pages; with the last one, and at its very moment, what was taken from the budgets."""
    ledger, after = Ledger(store, namespace), None
    while len(page := await ledger.page(after, _PAGE)) == _PAGE:
        yield page
        after = page[-1].position_in_stream
    # a part of a page is left to be read at the last moment: charges that go on would add to it
    days: set[str] | None = None
    while days != books.days:  # a day that began just now has budgets of its own
        days = books.days
        tail, books.taken = await _last_moment(store, namespace, after, days)
        yield tail
        after = tail[-1].position_in_stream if tail else after


async def _last_moment(
    store: Store, namespace: str, after: str | None, days: Collection[str]
) -> tuple[list[LedgerEntry], dict[str, dict[str, int]]]:
    """The entries after `after`, and all that was taken, by the names of their keys."""
    spans = ("total", *days)
    names = [f"{kind}{span}" for kind in ("", "advertisers:") for span in spans]

    async def read(redis: Redis) -> list[Any]:
        pipeline = redis.pipeline(transaction=True)
        pipeline.xrange(f"{{{namespace}}}:ledger", "-" if after is None else f"({after}", "+")
        for name in names:
            pipeline.hgetall(f"{{{namespace}}}:spent:{name}")
        return list(await pipeline.execute())

    entries, *hashes = await store.run(read)
    taken = {
        name: {key.decode(): int(value) for key, value in found.items()}
        for name, found in zip(names, hashes, strict=True)
    }
    return [as_entry(raw) for raw in entries], taken


async def _check_receipts(
    page: Sequence[LedgerEntry], receipts: ReceiptCheck, finding: Finding
) -> None:
    recent = [entry for entry in page if entry.at_ms >= receipts.since_ms]
    if not recent:
        return
    missing = set(await receipts.find_missing(list({entry.response_id for entry in recent})))
    finding.checked += len(recent)
    for entry in recent:
        if entry.response_id in missing:
            finding.breaks(f"{entry.charge_id}: {entry.response_id} has no receipt")


class _Places:
    """What was charged, as hashes in temporary files: compared a part at a time."""

    def __init__(self, stack: ExitStack) -> None:
        self._files: list[IO[bytes]] = [
            stack.enter_context(TemporaryFile())  # noqa: SIM115  the stack closes it
            for _ in range(_BUCKETS)
        ]

    def add(self, response_id: str, ad_id: str) -> None:
        """Note one charge."""
        digest = place_digest(response_id, ad_id)
        self._files[digest[0] % _BUCKETS].write(digest)

    def repeated(self) -> set[bytes]:
        """The digests that were noted more than once."""
        found: set[bytes] = set()
        for file in self._files:
            seen: set[bytes] = set()
            for digest in _digests(file):
                (found if digest in seen else seen).add(digest)
        return found


def place_digest(response_id: str, ad_id: str) -> bytes:
    """16 bytes that stand for this ad in this answer."""
    return blake2b(f"{response_id}\0{ad_id}".encode(), digest_size=_DIGEST_BYTES).digest()


def _digests(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while digest := file.read(_DIGEST_BYTES):
        yield digest


async def _name_repeated(ledger: Ledger, books: _Books, repeated: set[bytes]) -> None:
    """Read the ledger once more, for the names of what is in it more than once."""
    finding, seen = books.findings[Invariant.CHARGED_ONCE], set[bytes]()
    async for entry in ledger.entries():
        digest = place_digest(entry.response_id, entry.ad_id)
        if digest in repeated:
            if digest in seen:
                finding.breaks(f"{entry.response_id}, {entry.ad_id}: charged again")
            seen.add(digest)
