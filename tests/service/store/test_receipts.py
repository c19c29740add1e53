"""Receipts and click targets on a real Valkey: kept together, found by user, erased, forgotten."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.auction.ad import Ad
from service.store.catalog import Catalog
from service.store.click_targets import ClickTarget, ClickTargets
from service.store.connection import Store, StoreUnavailable
from service.store.receipts import Receipts

NOW = datetime.now(UTC)
RETENTION_S = 3_600
_ids = itertools.count(1)


def fresh_id() -> str:
    return f"resp_{next(_ids):032x}"


@pytest.fixture
def receipts(store: Store, namespace: str) -> Receipts:
    return Receipts(store, namespace, RETENTION_S)


@pytest.fixture
def targets(store: Store, namespace: str) -> ClickTargets:
    return ClickTargets(store, namespace, 60)


async def keys(store: Store, namespace: str) -> dict[str, int]:
    """All keys of a deployment, without its prefix, with their seconds to live (-1: for ever)."""
    prefix = f"{{{namespace}}}:"
    found: list[bytes] = await store.run(lambda redis: redis.keys(f"{prefix}*"))
    names = [raw.decode() for raw in found]
    return {name.removeprefix(prefix): await ttl(store, name) for name in names}


async def ttl(store: Store, name: str) -> int:
    seconds: int = await store.run(lambda redis: redis.ttl(name))
    return seconds


class TestReceipts:
    async def test_what_is_saved_is_read(self, receipts: Receipts) -> None:
        one, other = fresh_id(), fresh_id()
        await receipts.save(one, b'{"receipt":1}', "u1", NOW)
        assert await receipts.get(one) == b'{"receipt":1}'
        assert await receipts.get_many([other, one]) == [None, b'{"receipt":1}']
        assert await receipts.get_many([]) == []

    async def test_everything_goes_when_the_retention_ends(
        self, receipts: Receipts, store: Store, namespace: str
    ) -> None:
        await receipts.save(fresh_id(), b"{}", "u1", NOW)
        lives = await keys(store, namespace)
        assert len(lives) == 2
        assert all(RETENTION_S - 60 < seconds <= RETENTION_S for seconds in lives.values())

    async def test_an_answer_without_a_user_is_nobodys(
        self, receipts: Receipts, store: Store, namespace: str
    ) -> None:
        response_id = fresh_id()
        await receipts.save(response_id, b"{}", None, NOW)
        assert list(await keys(store, namespace)) == [f"receipt:{response_id}"]

    async def test_a_users_responses_are_listed_by_time(self, receipts: Receipts) -> None:
        first, second, others = fresh_id(), fresh_id(), fresh_id()
        await receipts.save(second, b"{}", "u1", NOW)
        await receipts.save(first, b"{}", "u1", NOW - timedelta(minutes=1))
        await receipts.save(others, b"{}", "u2", NOW)
        assert await receipts.of_user("u1") == [first, second]

    async def test_a_users_list_forgets_what_is_past_the_retention(
        self, receipts: Receipts
    ) -> None:
        old, new = fresh_id(), fresh_id()
        await receipts.save(old, b"{}", "u1", NOW - timedelta(seconds=RETENTION_S + 1))
        await receipts.save(new, b"{}", "u1", NOW)
        assert await receipts.of_user("u1") == [new]

    async def test_what_is_erased_is_gone_but_was_there(
        self, receipts: Receipts, store: Store, namespace: str
    ) -> None:
        response_id = fresh_id()
        await receipts.save(response_id, b'{"receipt":"secret text"}', "u1", NOW)
        assert await receipts.erase(response_id)
        assert await receipts.get(response_id) is None
        assert await receipts.missing([response_id]) == []
        left = await store.run(lambda redis: redis.get(f"{{{namespace}}}:receipt:{response_id}"))
        assert left == b""
        assert 0 < (await keys(store, namespace))[f"receipt:{response_id}"] <= RETENTION_S
        assert not await receipts.erase(response_id)

    async def test_missing_names_those_without_a_record(self, receipts: Receipts) -> None:
        one, other = fresh_id(), fresh_id()
        await receipts.save(one, b"{}", None, NOW)
        assert await receipts.missing([one, other]) == [other]
        assert not await receipts.erase(other)
        assert await receipts.missing([other]) == [other]

    async def test_erasing_a_user_erases_all_of_theirs_and_nothing_else(
        self, receipts: Receipts, store: Store, namespace: str
    ) -> None:
        mine = [fresh_id() for _ in range(250)]
        theirs = fresh_id()
        for response_id in mine:
            await receipts.save(response_id, b"{}", "u1", NOW)
        await receipts.save(theirs, b"{}", "u2", NOW)
        assert sorted(await receipts.of_user("u1")) == sorted(mine)
        assert await receipts.erase_user("u1") == 250
        assert await receipts.get_many(mine) == [None] * 250
        assert "receipts:u1" not in await keys(store, namespace)
        assert await receipts.get(theirs) == b"{}"
        assert await receipts.erase_user("u1") == 0

    async def test_what_goes_along_is_kept_or_lost_with_it(
        self, receipts: Receipts, store: Store, namespace: str
    ) -> None:
        response_id = fresh_id()
        mark = f"{{{namespace}}}:mark"

        def command(redis: Any) -> None:
            redis.set(mark, "1")

        await receipts.save(response_id, b"{}", None, NOW, command)
        assert await store.run(lambda redis: redis.get(mark)) == b"1"

        def broken(redis: Any) -> None:
            redis.set(mark, "2")
            redis.execute_command("SET", mark)

        with pytest.raises(StoreUnavailable):
            await receipts.save(fresh_id(), b"{}", None, NOW, broken)
        assert await store.run(lambda redis: redis.get(mark)) == b"1"

    async def test_a_store_that_is_away_says_so(self, own_store: Store) -> None:
        receipts = Receipts(own_store, "away", RETENTION_S)
        await own_store.run(lambda redis: redis.execute_command("CLIENT", "PAUSE", 2_000))
        with pytest.raises(StoreUnavailable):
            await receipts.save(fresh_id(), b"{}", None, NOW)


class TestClickTargets:
    async def save(self, receipts: Receipts, targets: ClickTargets, *ads: Ad) -> str:
        response_id = fresh_id()
        await receipts.save(
            response_id, b"{}", None, NOW, lambda redis: targets.write(redis, response_id, ads)
        )
        return response_id

    @pytest.mark.parametrize(
        ("advertiser_id", "landing_url"),
        [
            ("adv-trailhead", "https://new.example/"),
            ("adv-new", "https://www.trailhead-boots.example/"),
        ],
    )
    async def test_the_catalogue_says_where_unless_the_ad_became_anothers(
        self,
        receipts: Receipts,
        targets: ClickTargets,
        catalog: Catalog,
        make_ad: Callable[..., Ad],
        advertiser_id: str,
        landing_url: str,
    ) -> None:
        response_id = await self.save(receipts, targets, make_ad("Ad-1"), make_ad("Ad-2"))
        now = make_ad("Ad-1", landing_url="https://new.example/", advertiser_id=advertiser_id)
        await catalog.put(now)
        found = await targets.find(response_id, "Ad-1")
        assert found == ClickTarget(landing_url, "adv-trailhead")

    async def test_a_deleted_ad_still_leads_where_it_was_shown_to_lead(
        self, receipts: Receipts, targets: ClickTargets, make_ad: Callable[..., Ad]
    ) -> None:
        response_id = await self.save(receipts, targets, make_ad("Ad-1"))
        found = await targets.find(response_id, "Ad-1")
        assert found == ClickTarget("https://www.trailhead-boots.example/", "adv-trailhead")

    async def test_of_a_forgotten_answer_only_the_page_is_known(
        self, receipts: Receipts, targets: ClickTargets, make_ad: Callable[..., Ad]
    ) -> None:
        await self.save(receipts, targets, make_ad("Ad-1"))
        found = await targets.find(fresh_id(), "Ad-1")
        assert found == ClickTarget("https://www.trailhead-boots.example/", None)
        assert await targets.find(fresh_id(), "Ad-9") == ClickTarget(None, None)

    async def test_records_outlive_their_charges_and_pages_stay(
        self,
        receipts: Receipts,
        targets: ClickTargets,
        make_ad: Callable[..., Ad],
        store: Store,
        namespace: str,
    ) -> None:
        response_id = await self.save(receipts, targets, make_ad("Ad-1"))
        lives = await keys(store, namespace)
        assert lives["landings"] == -1
        assert lives[f"shown_ads:{response_id}"] > 60

    async def test_answers_without_ads_leave_nothing(
        self, receipts: Receipts, targets: ClickTargets, store: Store, namespace: str
    ) -> None:
        response_id = await self.save(receipts, targets)
        assert list(await keys(store, namespace)) == [f"receipt:{response_id}"]

    @pytest.mark.parametrize(
        "damaged", [b"{", b"[]", b'{"landing_url": 5}', b'{"landing_url": "javascript:alert(1)"}']
    )
    async def test_a_damaged_ad_leads_to_the_page_it_was_shown_with(
        self,
        receipts: Receipts,
        targets: ClickTargets,
        make_ad: Callable[..., Ad],
        store: Store,
        namespace: str,
        damaged: bytes,
    ) -> None:
        response_id = await self.save(receipts, targets, make_ad("Ad-1"))
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:ads", "Ad-1", damaged))
        found = await targets.find(response_id, "Ad-1")
        assert found.landing_url == "https://www.trailhead-boots.example/"

    async def test_pages_are_remembered_for_when_the_store_is_away(
        self,
        receipts: Receipts,
        targets: ClickTargets,
        make_ad: Callable[..., Ad],
        store: Store,
        namespace: str,
    ) -> None:
        response_id = await self.save(receipts, targets, make_ad("Ad-1"))
        assert targets.remembered("Ad-1") == "https://www.trailhead-boots.example/"
        other_process = ClickTargets(store, namespace, 60)
        assert other_process.remembered("Ad-1") is None
        await other_process.find(response_id, "Ad-1")
        assert other_process.remembered("Ad-1") == "https://www.trailhead-boots.example/"
