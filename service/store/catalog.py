"""The ad catalogue: ads by id, with all that decides whether they may stand in an answer.

Keys, all in one hash slot, so that they can stand in one transaction on a Redis Cluster too:

    {ns}:ads          hash of ad_id to the ad as JSON
    {ns}:ids          sorted set of all ids, all with score 0, so ordered by id
    {ns}:ads:top-ups  hash of <ad_id>\\x1f<reference> to micros
    {ns}:seeded       there once the demo ads were loaded

It also reads advertisers, what was taken from budgets and what users were shown, so that one round
trip has it all; these are written by `advertisers.py`, `ledger.py` and `showings.py` beside it.
Deleting an ad keeps what it has spent: entering it again does not refill its budget.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import islice

from pydantic import ValidationError

from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.eligibility import AdRecord, AdvertiserRecord
from service.store.connection import Store, StoreUnavailable
from service.store.records import Records
from service.store.script import Script
from service.store.showings import Viewer

log = logging.getLogger(__name__)

_CHUNK = 500

_FETCH = Script("""
local function read(key, ids)
  if #ids == 0 then return {} end
  return redis.call('HMGET', key, unpack(ids))
end
local ids, payers, is_payer = cjson.decode(ARGV[1]), {}, {}
local ads = read(KEYS[1], ids)
for _, ad in ipairs(ads) do
  -- a quote inside of a JSON text has a backslash before it, so this can only be the field; looked
  -- for as plain text, since a pattern takes longer than all the rest
  local _, before = string.find(ad or '', '"advertiser_id":"', 1, true)
  local after = before and string.find(ad, '"', before + 1, true)
  local payer = after and string.sub(ad, before + 1, after - 1)
  if payer and not is_payer[payer] then
    is_payer[payer] = true
    payers[#payers + 1] = payer
  end
end
local shown = {}
if ARGV[2] ~= '' then shown = redis.call('ZRANGEBYSCORE', KEYS[7], ARGV[2], '+inf') end
return {
  ads, read(KEYS[2], ids), read(KEYS[3], ids),
  payers, read(KEYS[4], payers), read(KEYS[5], payers), read(KEYS[6], payers),
  shown,
}
""")
"""The ids as one argument: packing hundreds in Python takes longer than all the rest."""


class ImportInterrupted(StoreUnavailable):
    """The store went away during an import; the first `saved` ads are in."""

    def __init__(self, saved: int) -> None:
        super().__init__(f"the ad store went away after {saved} ads")
        self.saved = saved


@dataclass(frozen=True, slots=True)
class Imported:
    """How many ads an import created, and how many it replaced."""

    created: int
    replaced: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some ads in the order of their ids. `cursor` leads to the next page; None at the end."""

    ads: tuple[Ad, ...]
    cursor: str | None


class Catalog(Records[Ad]):
    """Every method raises StoreUnavailable. `namespace` keeps deployments apart on one server."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._prefix = f"{{{namespace}}}"
        super().__init__(store, f"{self._prefix}:ads", f"{self._prefix}:ids", Ad)
        self._seeded_key = f"{self._prefix}:seeded"
        self._decode_advertiser = lru_cache(maxsize=1_000)(Advertiser.model_validate_json)

    @property
    def is_up(self) -> bool:
        """Whether the store answers."""
        return self._store.is_up

    async def fetch(
        self, ad_ids: Sequence[str], day: date, viewer: Viewer | None = None
    ) -> Mapping[str, AdRecord]:
        """Ads with their own and their advertisers' spending, in one round trip.

        Ids without an ad are left out. day: of the deployment's time zone. viewer: whose showings
        are counted; None: nobody's.
        """
        if not ad_ids:
            return {}
        unique = list(dict.fromkeys(ad_ids))
        since_ms = "" if viewer is None else str(viewer.since_ms)
        keys = self._fetch_keys(day, viewer)
        ads, totals, todays, payer_ids, *payers, shown = await self._store.run(
            lambda redis: _FETCH.run(redis, keys, json.dumps(unique), since_ms)
        )
        advertisers = self._advertisers(payer_ids, *payers)
        counts = Counter(member.partition(b"\x1f")[0] for member in shown)
        records = {}
        for ad_id, raw, total, today in zip(unique, ads, totals, todays, strict=True):
            ad = None if raw is None else self._read(ad_id, raw)
            payer = None if ad is None else advertisers.get(ad.advertiser_id)
            # without a readable payer there is no telling what it may spend
            if ad is not None and payer is not None:
                count = counts[ad_id.encode()] if counts else 0
                records[ad_id] = AdRecord(ad, int(total or 0), int(today or 0), payer, count)
        return records

    async def list(self, cursor: str | None, limit: int) -> Page:
        """Up to `limit` ads with ids after `cursor`."""
        return Page(*await self.page(cursor, limit))

    async def import_many(self, ads: Iterable[Ad]) -> Imported:
        """Save all `ads`, some hundred a transaction; later ones replace earlier ones.

        Raises ImportInterrupted where the store goes away between two transactions.
        """
        created = saved = 0
        source = iter(ads)
        while chunk := list(islice(source, _CHUNK)):
            try:
                created += await self._save(chunk)
            except StoreUnavailable as away:
                raise ImportInterrupted(saved) from away
            saved += len(chunk)
        return Imported(created, saved - created)

    async def is_seeded(self) -> bool:
        """Whether `mark_seeded` was called before."""
        return bool(await self._store.run(lambda redis: redis.exists(self._seeded_key)))

    async def mark_seeded(self) -> None:
        """Remember that this catalogue had its first ads."""
        await self._store.run(lambda redis: redis.set(self._seeded_key, "1"))

    def _fetch_keys(self, day: date, viewer: Viewer | None) -> tuple[str, ...]:
        spent = f"{self._prefix}:spent"
        return (
            self._key,
            f"{spent}:total",
            f"{spent}:{day.isoformat()}",
            f"{self._prefix}:advertisers",
            f"{spent}:advertisers:total",
            f"{spent}:advertisers:{day.isoformat()}",
            f"{self._prefix}:shown:{viewer.user if viewer else ''}",
        )

    def _advertisers(
        self,
        ids: Sequence[bytes],
        raws: Sequence[bytes | None],
        totals: Sequence[bytes | None],
        todays: Sequence[bytes | None],
    ) -> dict[str, AdvertiserRecord]:
        found = {}
        for raw_id, raw, total, today in zip(ids, raws, totals, todays, strict=True):
            advertiser_id = raw_id.decode()
            try:
                advertiser = None if raw is None else self._decode_advertiser(raw)
            except ValidationError:
                log.error("the stored advertiser %s is invalid: no ads of it", advertiser_id)
                continue
            found[advertiser_id] = AdvertiserRecord(advertiser, int(total or 0), int(today or 0))
        return found
