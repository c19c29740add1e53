import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.eligibility import AdRecord, AdvertiserRecord
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog, Imported, ImportInterrupted
from service.store.connection import Store, StoreUnavailable

MakeAd = Callable[..., Ad]
T = TypeVar("T")
DAY = date(2030, 5, 17)


class CountingStore(Store):
    """Counts round trips; from the `fails_at`-th on the store is away."""

    def __init__(self, store: Store, fails_at: int | None = None) -> None:
        self.store = store
        self.fails_at = fails_at
        self.count = 0

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        self.count += 1
        if self.fails_at is not None and self.count >= self.fails_at:
            raise StoreUnavailable
        return await self.store.run(command)


async def test_an_ad_is_entered_replaced_read_and_removed(
    catalog: Catalog, make_ad: MakeAd
) -> None:
    assert await catalog.get("Ad-1") is None
    assert await catalog.put(make_ad(reserve="1.5"))
    assert not await catalog.put(make_ad(reserve="2.5", title="Ünïcode “Boots” 靴"))
    assert await catalog.get("Ad-1") == make_ad(reserve="2.5", title="Ünïcode “Boots” 靴")
    assert await catalog.count() == 1
    assert await catalog.delete("Ad-1")
    assert not await catalog.delete("Ad-1")
    assert await catalog.get("Ad-1") is None
    assert await catalog.count() == 0


class TestFetch:
    async def test_gives_known_ads_with_spending(
        self, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        counting = CountingStore(store)
        catalog = Catalog(counting, namespace)
        await catalog.import_many([make_ad("Ad-1"), make_ad("Ad-2")])
        prefix = f"{{{namespace}}}:spent"
        await store.run(lambda r: r.hset(f"{prefix}:total", mapping={"Ad-1": 7, "Ad-9": 1}))
        await store.run(lambda r: r.hset(f"{prefix}:2030-05-17", mapping={"Ad-1": 3}))
        await store.run(lambda r: r.hset(f"{prefix}:2030-05-16", mapping={"Ad-2": 4}))
        for round_trips in (2, 1):
            counting.count = 0
            records = await catalog.fetch(["Ad-2", "Ad-1", "Ad-9", "Ad-1", 'o"dd,'], DAY)
            assert counting.count == round_trips
            assert records == {
                "Ad-1": AdRecord(make_ad("Ad-1"), 7, 3),
                "Ad-2": AdRecord(make_ad("Ad-2"), 0, 0),
            }

    async def test_gives_each_ads_advertiser_with_its_spending(
        self, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        counting = CountingStore(store)
        catalog, advertisers = Catalog(counting, namespace), Advertisers(store, namespace)
        payer = Advertiser.model_validate({"advertiser_id": "adv-1", "budget": {"total": 5}})
        await advertisers.put(payer)
        await catalog.import_many(
            [
                make_ad("Ad-1", advertiser_id="adv-1"),
                make_ad("Ad-2", advertiser_id="adv-1"),
                make_ad("Ad-3", advertiser_id="adv-3"),
            ]
        )
        spent = f"{{{namespace}}}:spent:advertisers"
        await store.run(lambda r: r.hset(f"{spent}:total", mapping={"adv-1": 7, "adv-2": 1}))
        await store.run(lambda r: r.hset(f"{spent}:2030-05-17", mapping={"adv-1": 3, "adv-3": 2}))
        entered, never_entered = AdvertiserRecord(payer, 7, 3), AdvertiserRecord(None, 0, 2)
        for round_trips in (2, 1):
            counting.count = 0
            records = await catalog.fetch(["Ad-1", "Ad-2", "Ad-3"], DAY)
            assert counting.count == round_trips
            found = [records[ad_id].advertiser for ad_id in ("Ad-1", "Ad-2", "Ad-3")]
            assert found == [entered, entered, never_entered]

    async def test_an_ad_that_became_anothers_is_paid_for_by_that_one(
        self, catalog: Catalog, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        await catalog.import_many([make_ad("Ad-1", advertiser_id="adv-1")])
        await catalog.fetch(["Ad-1"], DAY)
        key = f"{{{namespace}}}:spent:advertisers:total"
        await store.run(lambda r: r.hset(key, mapping={"adv-1": 7, "adv-2": 9}))
        for advertiser_id, spent in (("adv-2", 9), ("adv-1", 7)):
            # as another process does: this one has not seen it
            await Catalog(store, namespace).put(make_ad("Ad-1", advertiser_id=advertiser_id))
            records = await catalog.fetch(["Ad-1"], DAY)
            assert records["Ad-1"].ad.advertiser_id == advertiser_id
            assert records["Ad-1"].advertiser.spent_total_micros == spent

    async def test_leaves_out_the_ads_of_a_damaged_advertiser(
        self, catalog: Catalog, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        await catalog.import_many([make_ad("Ad-1", advertiser_id="adv-1"), make_ad("Ad-2")])
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:advertisers", "adv-1", "{}"))
        assert set(await catalog.fetch(["Ad-1", "Ad-2"], DAY)) == {"Ad-2"}

    async def test_of_nothing_asks_nothing(self, store: Store, namespace: str) -> None:
        counting = CountingStore(store)
        assert await Catalog(counting, namespace).fetch([], DAY) == {}
        assert counting.count == 0

    async def test_sees_every_change_at_once(self, catalog: Catalog, make_ad: MakeAd) -> None:
        for status in ("active", "paused", "active"):
            await catalog.put(make_ad(status=status))
            assert (await catalog.fetch(["Ad-1"], DAY))["Ad-1"].ad.status == status

    async def test_leaves_a_damaged_ad_out_and_gives_the_others(
        self, catalog: Catalog, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        await catalog.import_many([make_ad("Ad-1"), make_ad("Ad-2")])
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:ads", "Ad-1", "{}"))
        assert set(await catalog.fetch(["Ad-1", "Ad-2"], DAY)) == {"Ad-2"}

    async def test_keeps_spending_when_an_ad_is_removed_and_entered_again(
        self, catalog: Catalog, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        await catalog.put(make_ad())
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:spent:total", "Ad-1", 5))
        await catalog.delete("Ad-1")
        await catalog.put(make_ad())
        assert (await catalog.fetch(["Ad-1"], DAY))["Ad-1"].spent_total_micros == 5


class TestPatch:
    async def test_changes_what_is_there(self, catalog: Catalog, make_ad: MakeAd) -> None:
        await catalog.put(make_ad())
        paused = await catalog.patch("Ad-1", lambda ad: ad.model_copy(update={"status": "paused"}))
        assert paused == make_ad(status="paused") == await catalog.get("Ad-1")

    async def test_of_an_unknown_ad_is_none(self, catalog: Catalog) -> None:
        assert await catalog.patch("Ad-1", lambda ad: ad) is None

    async def test_loses_no_change_when_many_write_at_once(
        self, catalog: Catalog, make_ad: MakeAd
    ) -> None:
        await catalog.put(make_ad())

        def with_language(number: int) -> Callable[[Ad], Ad]:
            tag = f"x{chr(ord('a') + number)}"
            return lambda ad: ad.model_copy(update={"languages": (*ad.languages, tag)})

        await asyncio.gather(*(catalog.patch("Ad-1", with_language(n)) for n in range(15)))
        found = await catalog.get("Ad-1")
        assert found is not None
        assert len(set(found.languages)) == 15


class TestList:
    async def test_pages_hold_every_ad_once_in_the_order_of_ids(
        self, catalog: Catalog, make_ad: MakeAd
    ) -> None:
        ids = [f"Ad-{number:02}" for number in range(25)]
        await catalog.import_many(make_ad(ad_id) for ad_id in reversed(ids))
        seen: list[str] = []
        cursor, sizes = None, []
        while True:
            page = await catalog.list(cursor, 10)
            sizes.append(len(page.ads))
            seen += [ad.ad_id for ad in page.ads]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == ids
        assert sizes == [10, 10, 5]

    async def test_a_full_last_page_has_no_cursor(self, catalog: Catalog, make_ad: MakeAd) -> None:
        await catalog.import_many([make_ad("Ad-1"), make_ad("Ad-2")])
        assert (await catalog.list(None, 2)).cursor is None
        assert (await catalog.list(None, 1)).cursor == "Ad-1"


class TestImport:
    async def test_counts_new_and_replaced(self, catalog: Catalog, make_ad: MakeAd) -> None:
        await catalog.put(make_ad("Ad-3"))
        ads = [make_ad(f"Ad-{number}") for number in range(1_200)]
        assert await catalog.import_many(ads) == Imported(created=1_199, replaced=1)
        assert await catalog.count() == 1_200

    async def test_that_is_cut_off_tells_how_much_is_in(
        self, store: Store, namespace: str, make_ad: MakeAd
    ) -> None:
        catalog = Catalog(CountingStore(store, fails_at=3), namespace)
        with pytest.raises(ImportInterrupted) as cut:
            await catalog.import_many(make_ad(f"Ad-{number}") for number in range(2_000))
        assert cut.value.saved == 1_000
        assert await Catalog(store, namespace).count() == 1_000


async def test_deployments_on_one_server_do_not_meet(
    store: Store, namespace: str, make_ad: MakeAd
) -> None:
    await Catalog(store, f"{namespace}-a").put(make_ad())
    assert await Catalog(store, f"{namespace}-b").get("Ad-1") is None


async def test_all_keys_share_one_slot(
    catalog: Catalog, store: Store, namespace: str, make_ad: MakeAd
) -> None:
    await catalog.put(make_ad())
    await catalog.mark_seeded()
    keys = await store.run(lambda redis: redis.keys(f"*{namespace}*"))
    assert keys
    assert all(key.decode().startswith(f"{{{namespace}}}:") for key in keys)
