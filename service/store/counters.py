"""What reports are made of, counted while it happens: no report ever reads the ledger.

Keys, in the catalogue's hash slot; days and hours are those of the deployment's time zone:

    {ns}:count:<YYYY-MM-DD>       hash of <metric>\\x1f<ad_id> or
                                  <metric>\\x1f<ad_id>\\x1f<advertiser_id> to a count
    {ns}:count:hour:<YYYY-MM-DD>  hash of spend\\x1f<ad_id>\\x1f<HH> to micros
    {ns}:count:advertisers        hash of ad_id to the advertiser it was last shown for

and of others, read for what is left of budgets: `advertisers`, `spent:advertisers:…`.

Metrics are `eligible`, `shown`, `excluded.<reason>`, counted here with each answer, and `clicks`,
`impressions_charged`, `spend` (micros), counted by the charge. Showings and charges name the
advertiser that they were for, as an ad may become another's; those of earlier versions name none.
`answers`, `held_out` and `excluded.unknown` belong to no ad: their id is empty, for callers may ask
for any number of ads that do not exist. Days are forgotten after `KEPT_S`. A report takes time by
the number of ads and days, whatever was clicked.
"""

import json
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from operator import methodcaller
from typing import Any

from redis.asyncio import Redis

from service.auction.advertiser import Advertiser
from service.auction.eligibility import Exclusion
from service.auction.figures import NO_LIMIT, Account, DayCounts, Figures
from service.store.connection import Store

KEPT_S = 400 * 86_400
"""How long a day's counts are kept: longer than the longest report."""

_APART = "\x1f"
_CHUNK = 1_000
"""Fields a command: small enough for the time-out, and for whoever waits behind it."""

_COUNT = """
local counted, shown_for = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
for metric, ids in pairs(counted) do
  for _, id in ipairs(ids) do redis.call('HINCRBY', KEYS[1], metric .. '\\31' .. id, 1) end
end
for _, key in ipairs({KEYS[1], KEYS[2]}) do
  if redis.call('TTL', key) == -1 then redis.call('EXPIRE', key, ARGV[3]) end
end
for id, advertiser in pairs(shown_for) do redis.call('HSET', KEYS[3], id, advertiser) end
"""

_COLUMNS = {
    "eligible": "eligible",
    "shown": "shown",
    "clicks": "clicks",
    "impressions_charged": "impressions_charged",
    "spend": "spend_micros",
}


@dataclass(frozen=True, slots=True)
class Served:
    """What one answer did. `shown`: advertiser by ad. `excluded`: ad and reason.

    Ids must hold no control characters; an ad's id never does.
    """

    eligible: Sequence[str] = ()
    shown: Mapping[str, str] = field(default_factory=dict)
    excluded: Sequence[tuple[str, str]] = ()
    is_held_out: bool = False


@dataclass(frozen=True, slots=True)
class OwnedCounts(DayCounts):
    """A day's counts, and whose its ads were then.

    owned: what `ads` are the sums of, by the names that `ad_and_owner` reads.
    """

    owned: Mapping[str, Figures] = field(default_factory=dict)


def ad_and_owner(name: str) -> tuple[str, str]:
    """The ad and the advertiser of a name in `OwnedCounts.owned`; the latter is "" for what is
    counted for no advertiser."""
    ad_id, _, advertiser_id = name.partition(_APART)
    return ad_id, advertiser_id


class Counters:
    """Every method raises StoreUnavailable."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = f"{{{namespace}}}"
        self._prefix = f"{self._namespace}:count"
        self._advertisers_key = f"{self._prefix}:advertisers"

    async def record(self, day: date, served: Served) -> None:
        """Count one answer, in one round trip."""
        await self._store.run(lambda redis: self.count(redis, day, served))

    def count(self, redis: Redis, day: date, served: Served) -> Awaitable[Any]:
        """The command that counts one answer; on a pipeline it travels with others."""
        counted = {
            "answers": [""],
            "held_out": [""] if served.is_held_out else [],
            "eligible": list(served.eligible),
            "shown": [_APART.join(whose) for whose in served.shown.items()],
        }
        by_reason: defaultdict[str, list[str]] = defaultdict(list)
        for ad_id, reason in served.excluded:
            by_reason[f"excluded.{reason}"].append("" if reason == Exclusion.UNKNOWN else ad_id)
        keys = (self._day_key(day), self._hour_key(day), self._advertisers_key)
        counts, shown = json.dumps({**counted, **by_reason}), json.dumps(dict(served.shown))
        return redis.eval(_COUNT, len(keys), *keys, counts, shown, KEPT_S)

    async def read(self, day: date) -> OwnedCounts:
        """All that was counted on `day`."""
        columns: defaultdict[str, Counter[str]] = defaultdict(Counter)
        owned: defaultdict[str, dict[str, int]] = defaultdict(dict)
        excluded: defaultdict[str, dict[str, int]] = defaultdict(dict)
        answers: dict[str, int] = {}
        async for field_name, count in self._scan(self._day_key(day)):
            metric, _, name = field_name.partition(_APART)
            kind, _, reason = metric.partition(".")
            if not name:
                answers[metric] = count
            elif kind == "excluded":
                excluded[name][reason] = count
            elif metric in _COLUMNS:
                columns[ad_and_owner(name)[0]][_COLUMNS[metric]] += count
                owned[name][_COLUMNS[metric]] = count
        return OwnedCounts(
            _figures(columns, excluded),
            owned=_figures(owned, excluded),
            answers=answers.get("answers", 0),
            held_out=answers.get("held_out", 0),
            unknown=answers.get("excluded.unknown", 0),
        )

    async def spend_by_hour(self, day: date) -> Mapping[str, Mapping[int, int]]:
        """Micros by hour (0..23) of `day`, by ad; hours without spend are left out."""
        spend: defaultdict[str, dict[int, int]] = defaultdict(dict)
        async for name, micros in self._scan(self._hour_key(day)):
            _, ad_id, hour = name.split(_APART)
            spend[ad_id][int(hour)] = micros
        return dict(spend)

    async def advertisers(self, ad_ids: Sequence[str]) -> Mapping[str, str]:
        """Whom ads were last shown for; also ads that the catalogue has no more."""
        found: dict[str, str] = {}
        for start in range(0, len(ad_ids), _CHUNK):
            some = list(ad_ids[start : start + _CHUNK])
            read = methodcaller("hmget", self._advertisers_key, some)
            values: list[bytes | None] = await self._store.run(read)
            pairs = zip(some, values, strict=True)
            found.update((ad_id, raw.decode()) for ad_id, raw in pairs if raw is not None)
        return found

    async def advertiser_accounts(
        self, advertiser_ids: Sequence[str], day: date
    ) -> Mapping[str, Account]:
        """What advertisers may spend, and have spent in all and on `day`.

        One that was never entered has no limits.
        """
        names = ("advertisers", "spent:advertisers:total", f"spent:advertisers:{day.isoformat()}")
        accounts: dict[str, Account] = {}
        for start in range(0, len(advertiser_ids), _CHUNK):
            some = list(advertiser_ids[start : start + _CHUNK])
            entered, totals, todays = [
                await self._store.run(methodcaller("hmget", f"{self._namespace}:{name}", some))
                for name in names
            ]
            for one, raw, total, today in zip(some, entered, totals, todays, strict=True):
                budget = NO_LIMIT if raw is None else Advertiser.model_validate_json(raw).budget
                accounts[one] = Account(one, budget, int(total or 0), int(today or 0))
        return accounts

    def _day_key(self, day: date) -> str:
        return f"{self._prefix}:{day.isoformat()}"

    def _hour_key(self, day: date) -> str:
        return f"{self._prefix}:hour:{day.isoformat()}"

    async def _scan(self, key: str) -> AsyncGenerator[tuple[str, int]]:
        cursor = 0
        while True:
            read = methodcaller("hscan", key, cursor, count=_CHUNK)
            cursor, some = await self._store.run(read)
            for name, value in some.items():
                yield name.decode(), int(value)
            if cursor == 0:
                return


def _figures(
    columns: Mapping[str, Mapping[str, int]], excluded: Mapping[str, Mapping[str, int]]
) -> dict[str, Figures]:
    return {
        name: Figures(**columns.get(name, {}), excluded=excluded.get(name, {}))
        for name in columns.keys() | excluded.keys()
    }
