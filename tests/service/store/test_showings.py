"""What users were shown, as frequency caps count it, in the candidates' one round trip."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from service.auction.ad import Ad
from service.store.catalog import Catalog
from service.store.connection import Store
from service.store.showings import MAX_SHOWINGS, Showing, Showings

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR_MS = 3_600_000
Show = Callable[..., Awaitable[None]]
Counts = Callable[..., Awaitable[list[int]]]


@pytest.fixture
def showings(store: Store, namespace: str) -> Showings:
    return Showings(store, namespace, window_s=3_600)


@pytest.fixture
def show(store: Store, showings: Showings) -> Show:
    async def shown(response_id: str, *ad_ids: str, ago_s: int = 0, user: str = "u-1") -> None:
        at = NOW - timedelta(seconds=ago_s)
        await store.run(lambda redis: showings.command(redis, user, response_id, ad_ids, at))

    return shown


@pytest.fixture
def counts(catalog: Catalog, showings: Showings, make_ad: Callable[..., Ad]) -> Counts:
    async def fetch(user: str | None = "u-1", at: datetime = NOW) -> list[int]:
        await catalog.import_many([make_ad("Ad-1"), make_ad("Ad-2")])
        viewer = None if user is None else showings.viewer(user, at)
        records = await catalog.fetch(["Ad-1", "Ad-2"], date(2030, 5, 17), viewer)
        return [records[ad_id].shown_count for ad_id in ("Ad-1", "Ad-2")]

    return fetch


async def test_each_answer_counts_for_its_ads_and_its_user(show: Show, counts: Counts) -> None:
    await show("resp_1", "Ad-1", "Ad-2")
    await show("resp_2", "Ad-1")
    await show("resp_3", "Ad-2", user="u-2")
    assert await counts() == [2, 1]
    assert await counts("u-2") == [0, 1]
    assert await counts("u-3") == await counts(None) == [0, 0]


async def test_an_answer_that_is_recorded_twice_counts_once(show: Show, counts: Counts) -> None:
    await show("resp_1", "Ad-1")
    await show("resp_1", "Ad-1")
    assert await counts() == [1, 0]


async def test_what_is_older_than_the_window_counts_no_more(show: Show, counts: Counts) -> None:
    await show("resp_1", "Ad-1", ago_s=1_800)
    assert await counts() == [1, 0]
    assert await counts(at=NOW + timedelta(seconds=1_800)) == [1, 0]
    assert await counts(at=NOW + timedelta(seconds=1_801)) == [0, 0]


async def test_it_is_forgotten_with_its_window(
    show: Show,
    showings: Showings,
    store: Store,
    namespace: str,
) -> None:
    await show("resp_1", "Ad-1", ago_s=3_700)
    await show("resp_2", "Ad-2", ago_s=60)
    await show("resp_3", "Ad-1")
    assert [showing.response_id for showing in await showings.read("u-1")] == ["resp_2", "resp_3"]
    left_ms = await store.run(lambda redis: redis.pttl(f"{{{namespace}}}:shown:u-1"))
    assert HOUR_MS - 10_000 < left_ms <= HOUR_MS


async def test_a_user_cannot_fill_the_store(show: Show, showings: Showings) -> None:
    for number in range(0, 2_000, 100):
        ads = [f"Ad-{n}" for n in range(number, number + 100)]
        await show("resp_1", *ads, ago_s=2_000 - number)
    kept = await showings.read("u-1")
    assert len(kept) == MAX_SHOWINGS
    assert {showing.ad_id for showing in kept} == {f"Ad-{n}" for n in range(1_000, 2_000)}


async def test_a_user_can_be_told_and_forgotten(show: Show, showings: Showings) -> None:
    await show("resp_1", "Ad-1", ago_s=5)
    at_ms = int(NOW.timestamp() * 1000) - 5_000
    assert await showings.read("u-1") == [Showing("Ad-1", "resp_1", at_ms)]
    assert await showings.erase("u-1")
    assert not await showings.erase("u-1")
    assert await showings.read("u-1") == []
