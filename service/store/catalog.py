"""The ad catalogue: ads by id, with all that decides whether they may stand in an answer.

Keys, all in one hash slot, so that they can stand in one transaction on a Redis Cluster too:

    {ns}:ads          hash of ad_id to the ad as JSON
    {ns}:ids          sorted set of all ids, all with score 0, so ordered by id
    {ns}:ads:top-ups  hash of <ad_id>\\x1f<reference> to micros
    {ns}:seeded       there once the demo ads were loaded

It also reads advertisers, what was taken from budgets and what users were shown, so that one round
trip has it all; these are written by `advertisers.py`, `ledger.py` and `showings.py` beside it.
Whose budgets to ask for is told by the ads as they were read before; where an ad is new here, or
was given to another advertiser, a second round trip asks for its advertiser's.
Deleting an ad keeps what it has spent: entering it again does not refill its budget.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis

from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.eligibility import AdRecord, AdvertiserRecord
from service.store.connection import Store, StoreUnavailable
from service.store.records import Records
from service.store.showings import Viewer

log = logging.getLogger(__name__)

_CHUNK = 500


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
        """Ads with their own and their advertisers' spending, mostly in one round trip.

        Ids without an ad are left out. day: of the deployment's time zone. viewer: whose showings
        are counted; None: nobody's.
        """
        if not ad_ids:
            return {}
        unique = list(dict.fromkeys(ad_ids))
        read_before = [held[1] for held in map(self._decoded.get, unique) if held is not None]
        asked = {ad.advertiser_id for ad in read_before}
        raws, totals, todays, *rest = await self._columns(unique, asked, day, viewer)
        counts = Counter(
            member.partition(b"\x1f")[0].decode() for member in (rest.pop() if viewer else ())
        )
        payers = self._advertisers(asked, *rest) if asked else {}
        ads = self._read_all(unique, raws)
        if missing := {ad.advertiser_id for ad in ads if ad is not None} - asked:
            payers |= self._advertisers(missing, *await self._columns((), missing, day))
        return {
            ad.ad_id: AdRecord(ad, int(total or 0), int(today or 0), payer, counts.get(ad.ad_id, 0))
            for ad, total, today in zip(ads, totals, todays, strict=True)
            # without a readable payer there is no telling what it may spend
            if ad is not None and (payer := payers.get(ad.advertiser_id)) is not None
        }

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

    async def _columns(
        self,
        ad_ids: Collection[str],
        advertiser_ids: Collection[str],
        day: date,
        viewer: Viewer | None = None,
    ) -> Sequence[Any]:
        """Of the ads the entries, what each has spent in all and on `day`; the same of the
        advertisers; then what the viewer was shown. Nothing for what is not asked for."""
        spent, today = f"{self._prefix}:spent", day.isoformat()
        of_payers = (f"{self._prefix}:advertisers", f"{spent}:advertisers:total")
        columns = (
            (ad_ids, (self._key, f"{spent}:total", f"{spent}:{today}")),
            (advertiser_ids, (*of_payers, f"{spent}:advertisers:{today}")),
        )

        def read(redis: Redis) -> Awaitable[Sequence[Any]]:
            pipeline = redis.pipeline(transaction=False)
            for ids, keys in columns:
                for key in keys if ids else ():
                    pipeline.hmget(key, ids)
            if viewer is not None:
                key = f"{self._prefix}:shown:{viewer.user}"
                pipeline.zrangebyscore(key, viewer.since_ms, "+inf")
            return pipeline.execute()

        return await self._store.run(read)

    def _advertisers(
        self,
        ids: Iterable[str],
        raws: Sequence[bytes | None],
        totals: Sequence[bytes | None],
        todays: Sequence[bytes | None],
    ) -> dict[str, AdvertiserRecord]:
        found = {}
        for advertiser_id, raw, total, today in zip(ids, raws, totals, todays, strict=True):
            try:
                advertiser = None if raw is None else self._decode_advertiser(raw)
            except ValidationError:
                log.error("the stored advertiser %s is invalid: no ads of it", advertiser_id)
                continue
            found[advertiser_id] = AdvertiserRecord(advertiser, int(total or 0), int(today or 0))
        return found
