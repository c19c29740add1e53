"""The ledger: every charge, once, with the budget that paid for it; nothing is ever changed.

Keys, all in one hash slot, so that one script can touch them on a Redis Cluster too:

    {ns}:ledger                           stream of charges, kept whole
    {ns}:charged:<response_id>            hash of ad_id to its charge; forgotten after a while
    {ns}:spent:total                      hash of ad_id to micros taken in all
    {ns}:spent:<YYYY-MM-DD>               hash of ad_id to micros taken on that day
    {ns}:spent:advertisers:total          hash of advertiser_id to micros taken in all
    {ns}:spent:advertisers:<YYYY-MM-DD>   hash of advertiser_id to micros taken on that day

A charge is one script: it looks whether this ad of this answer was charged before, takes the price
from the four budgets or leaves all as it was, and writes ledger and counts. Scripts run one at a
time, and the append-only file holds all of a script or nothing.

Budgets are those of the moment. Pausing an ad or its advertiser after the answer does not undo what
the answer promised: a click on it is still charged. An ad that was removed has no budget any more.
A charge that a budget refused leaves no trace, so it can succeed once the budget is topped up.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import methodcaller
from typing import Any

from redis.asyncio import Redis

from service.auction.charge import Event, charge_id
from service.store.charge_script import CHARGE, CHARGE_ALL
from service.store.connection import Store
from service.store.counters import KEPT_S

NO_LIMITS = (None, None, None, None)
_PAGE = 1_000
_METRICS: Mapping[Event, str] = {"click": "clicks", "impression": "impressions_charged"}


class ChargeState(StrEnum):
    """What became of a charge."""

    CHARGED = "charged"
    DUPLICATE = "duplicate"
    BUDGET_EXHAUSTED = "budget_exhausted"


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One event to charge for.

    price_micros: above 0, up to `bid_micros`. position: the ad's place among the answer's ads. at:
    when, in the deployment's time zone, whose day and hour it counts for. client_event_id: the
    reporter's own name for the event, of printable characters. dedupe_ttl_s: how long a second
    charge is refused; must outlast the token (and the receipt, which shows the charge).
    """

    response_id: str
    ad_id: str
    advertiser_id: str
    event: Event
    price_micros: int
    bid_micros: int
    position: int
    at: datetime
    dedupe_ttl_s: int
    client_event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Charged:
    """The outcome. `replayed`: the same client event was charged before, with this id and amount.

    `charge_id` is None and `amount_micros` 0 where nothing was charged for this client event.
    """

    state: ChargeState
    charge_id: str | None = None
    amount_micros: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """A charge as its answer remembers it. `at_ms`: epoch milliseconds."""

    charge_id: str
    event: Event
    amount_micros: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A charge as the ledger keeps it.

    position_in_stream: orders all entries. day: ISO text. limits_micros: the budgets that it was
    taken from as they were: the ad's in all and per day, the advertiser's in all and per day; None
    where there is no limit.
    """

    position_in_stream: str
    charge_id: str
    response_id: str
    ad_id: str
    advertiser_id: str
    event: str
    price_micros: int
    bid_micros: int
    position: int
    day: str
    at_ms: int
    limits_micros: tuple[int | None, ...]


class Ledger:
    """Every method raises StoreUnavailable; then it is open whether a charge was made.

    Charging again settles it: with the same client event the answer is the first one's.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}"
        self._ledger_key = f"{self._prefix}:ledger"

    async def charge(self, request: ChargeRequest) -> Charged:
        """Charge for one event, once. In time: whether a token has expired is not asked here."""
        keys, arguments = self._keys(request), _arguments(request)
        raw = await self._store.run(lambda redis: CHARGE.run(redis, keys, *arguments))
        return _outcome(request, raw)

    def charge_all(
        self, redis: Redis, requests: Sequence[ChargeRequest], parked_key: str | None = None
    ) -> Awaitable[Any]:
        """The command that charges for several events of one answer, at one time of one day.

        On a pipeline it travels with others, and happens with all of them or not at all.
        parked_key: a set of ad ids; only the ads in it are charged for, and are taken out.
        `states` reads what the pipeline gives for it.
        """
        keys = self._keys(requests[0])
        if parked_key is not None:
            keys = (*keys, parked_key)
        arguments = [list(map(str, _arguments(request))) for request in requests]
        return redis.eval(CHARGE_ALL, len(keys), *keys, json.dumps(arguments))

    @staticmethod
    def states(raw: Sequence[Sequence[bytes]]) -> dict[str, ChargeState]:
        """What became of the charges that `charge_all` tried, by ad."""
        return {ad_id.decode(): ChargeState(state.decode()) for ad_id, state in raw}

    async def charges(self, response_id: str) -> Mapping[str, Recorded]:
        """The charges for an answer's ads, by ad; none once their records are forgotten."""
        key = self._charged_key(response_id)
        held: dict[Any, Any] = await self._store.run(lambda redis: redis.hgetall(key))
        return {ad_id.decode(): _recorded(raw)[0] for ad_id, raw in held.items()}

    async def entries(self, after: str | None = None) -> AsyncGenerator[LedgerEntry]:
        """All entries in order, or those after `position_in_stream`, read a page at a time."""
        while page := await self.page(after):
            for entry in page:
                yield entry
            after = page[-1].position_in_stream

    async def page(self, after: str | None, limit: int = _PAGE) -> list[LedgerEntry]:
        """Up to `limit` entries after `after`, or from the first on."""
        begin = "-" if after is None else f"({after}"
        read = methodcaller("xrange", self._ledger_key, begin, "+", count=limit)
        found: list[Any] = await self._store.run(read)
        return [as_entry(raw) for raw in found]

    async def count(self) -> int:
        """How many charges there are."""
        return await self._store.run(lambda redis: redis.xlen(self._ledger_key))

    def _charged_key(self, response_id: str) -> str:
        return f"{self._prefix}:charged:{response_id}"

    def _keys(self, request: ChargeRequest) -> tuple[str, ...]:
        prefix, day = self._prefix, request.at.date().isoformat()
        return (
            self._charged_key(request.response_id),
            self._ledger_key,
            f"{prefix}:ads",
            f"{prefix}:advertisers",
            f"{prefix}:spent:total",
            f"{prefix}:spent:{day}",
            f"{prefix}:spent:advertisers:total",
            f"{prefix}:spent:advertisers:{day}",
            f"{prefix}:count:{day}",
            f"{prefix}:count:hour:{day}",
        )


def as_entry(raw: Any) -> LedgerEntry:
    """An entry as XRANGE gives it."""
    position, pairs = raw
    fields = {name.decode(): value.decode() for name, value in pairs.items()}
    return LedgerEntry(
        position_in_stream=position.decode(),
        charge_id=fields["charge_id"],
        response_id=fields["response_id"],
        ad_id=fields["ad_id"],
        advertiser_id=fields["advertiser_id"],
        event=fields["event"],
        price_micros=int(fields["price"]),
        bid_micros=int(fields["bid"]),
        position=int(fields["position"]),
        day=fields["day"],
        at_ms=int(fields["at"]),
        limits_micros=_limits(fields["limits"]) if "limits" in fields else NO_LIMITS,
    )


def _outcome(request: ChargeRequest, raw: Sequence[bytes]) -> Charged:
    state = ChargeState(raw[0].decode())
    if state is ChargeState.BUDGET_EXHAUSTED:
        return Charged(state)
    if state is ChargeState.CHARGED:
        made = charge_id(request.response_id, request.ad_id)
        return Charged(state, made, request.price_micros)
    recorded, client_event_id = _recorded(raw[1])
    if request.client_event_id is None or client_event_id != request.client_event_id:
        return Charged(state)
    return Charged(state, recorded.charge_id, recorded.amount_micros, replayed=True)


def _limits(text: str) -> tuple[int | None, ...]:
    return tuple(int(limit) if limit else None for limit in text.split(","))


def _arguments(request: ChargeRequest) -> tuple[str | int, ...]:
    return (
        request.ad_id,
        request.advertiser_id,
        request.response_id,
        charge_id(request.response_id, request.ad_id),
        request.event,
        request.price_micros,
        request.bid_micros,
        request.position,
        request.at.date().isoformat(),
        round(request.at.timestamp() * 1000),
        request.client_event_id or "",
        request.dedupe_ttl_s,
        _METRICS[request.event],
        f"{request.at.hour:02}",
        KEPT_S,
    )


def _recorded(raw: bytes) -> tuple[Recorded, str]:
    """The charge that an answer remembers, and the client event it was made for."""
    made, event, amount, at_ms, client_event_id = raw.decode().split("\x1f", 4)
    event_kind: Event = "click" if event == "click" else "impression"
    return Recorded(made, event_kind, int(amount), int(at_ms)), client_event_id
