"""The ad catalogue: ads by id, with what was taken from their budgets.

Keys, all in one hash slot, so that they can stand in one transaction on a Redis Cluster too:

    {ns}:ads                 hash of ad_id to the ad as JSON
    {ns}:ids                 sorted set of all ids, all with score 0, so ordered by id
    {ns}:spent:total         hash of ad_id to micros taken in all
    {ns}:spent:<YYYY-MM-DD>  hash of ad_id to micros taken on that day (UTC)
    {ns}:seeded              there once the demo ads were loaded

Deleting an ad keeps what it has spent: entering it again does not refill its budget.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis

from service.auction.ad import Ad
from service.auction.eligibility import AdRecord
from service.store.connection import Store, StoreUnavailable

log = logging.getLogger(__name__)

_CHUNK = 500
_DECODED_ADS = 10_000

_FETCH = """
local ids = cjson.decode(ARGV[1])
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HMGET', KEYS[i], unpack(ids)) end
return found
"""
"""The ids as one argument: packing hundreds in Python takes longer than all the rest."""

_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
"""Replace an ad only where it is still the one that was read."""


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


class Catalog:
    """Every method raises StoreUnavailable. `namespace` keeps deployments apart on one server."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}"
        self._ads_key = f"{self._prefix}:ads"
        self._ids_key = f"{self._prefix}:ids"
        self._seeded_key = f"{self._prefix}:seeded"
        self._total_key = f"{self._prefix}:spent:total"
        # ads change far less often than they are read: the same bytes are the same ad
        self._decode = lru_cache(maxsize=_DECODED_ADS)(Ad.model_validate_json)

    @property
    def is_up(self) -> bool:
        """Whether the store answers."""
        return self._store.is_up

    async def fetch(self, ad_ids: Sequence[str], day: date) -> Mapping[str, AdRecord]:
        """Ads with their spending, in one round trip; ids without an ad are left out."""
        if not ad_ids:
            return {}
        unique = list(dict.fromkeys(ad_ids))
        day_key = f"{self._prefix}:spent:{day.isoformat()}"
        keys = (self._ads_key, self._total_key, day_key)
        ads, totals, todays = await self._eval(_FETCH, keys, json.dumps(unique))
        return {
            ad_id: AdRecord(ad, int(total or 0), int(today or 0))
            for ad_id, raw, total, today in zip(unique, ads, totals, todays, strict=True)
            if raw is not None and (ad := self._read(ad_id, raw)) is not None
        }

    async def get(self, ad_id: str) -> Ad | None:
        """The ad, or None where there is none."""
        raw = await self._store.run(lambda redis: redis.hget(self._ads_key, ad_id))
        return None if raw is None else self._read(ad_id, raw)

    async def put(self, ad: Ad) -> bool:
        """Save the ad; whether it is new."""
        return (await self._save([ad])).created == 1

    async def patch(self, ad_id: str, change: Callable[[Ad], Ad]) -> Ad | None:
        """Replace the ad by `change` of it, or return None where there is none.

        Where another writer comes between, `change` is called again on what that one wrote.
        """
        while True:
            raw = await self._store.run(lambda redis: redis.hget(self._ads_key, ad_id))
            if raw is None or (ad := self._read(ad_id, raw)) is None:
                return None
            changed = change(ad)
            if await self._eval(_SWAP, (self._ads_key,), ad_id, raw, _encode(changed)):
                return changed

    async def delete(self, ad_id: str) -> bool:
        """Remove the ad; whether there was one."""

        async def remove(redis: Redis) -> bool:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hdel(self._ads_key, ad_id)
            pipeline.zrem(self._ids_key, ad_id)
            removed, _ = await pipeline.execute()
            return bool(removed)

        return await self._store.run(remove)

    async def list(self, cursor: str | None, limit: int) -> Page:
        """Up to `limit` ads with ids after `cursor`."""
        after = "-" if cursor is None else f"({cursor}"
        found: list[Any] = await self._store.run(
            lambda redis: redis.zrangebylex(self._ids_key, after, "+", start=0, num=limit + 1)
        )
        ids = [raw.decode() for raw in found]
        here = ids[:limit]
        records = await self.fetch(here, date.min)
        ads = tuple(records[ad_id].ad for ad_id in here if ad_id in records)
        return Page(ads, here[-1] if len(ids) > limit else None)

    async def count(self) -> int:
        """How many ads there are."""
        return await self._store.run(lambda redis: redis.zcard(self._ids_key))

    async def import_many(self, ads: Iterable[Ad]) -> Imported:
        """Save all `ads`, some hundred a transaction; later ones replace earlier ones.

        Raises ImportInterrupted where the store goes away between two transactions.
        """
        created = saved = 0
        source = iter(ads)
        while chunk := list(islice(source, _CHUNK)):
            try:
                created += (await self._save(chunk)).created
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

    async def _save(self, ads: Sequence[Ad]) -> Imported:
        async def write(redis: Redis) -> int:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hset(self._ads_key, mapping={ad.ad_id: _encode(ad) for ad in ads})
            pipeline.zadd(self._ids_key, {ad.ad_id: 0 for ad in ads})
            _, created = await pipeline.execute()
            return int(created)

        created = await self._store.run(write)
        return Imported(created, len(ads) - created)

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | bytes) -> Any:
        return await self._store.run(lambda redis: redis.eval(script, len(keys), *keys, *arguments))

    def _read(self, ad_id: str, raw: bytes | str) -> Ad | None:
        try:
            return self._decode(raw)
        except ValidationError:
            # one damaged ad must not take the others away
            log.error("the stored ad %s is invalid and left out", ad_id)
            return None


def _encode(ad: Ad) -> bytes:
    return ad.model_dump_json(by_alias=True).encode()
