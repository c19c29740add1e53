"""Counts on a real Valkey: what is recorded is what is read, and nothing is lost on the way."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from service.auction.ad import Ad
from service.auction.figures import Figures
from service.store.catalog import Catalog
from service.store.connection import Store, StoreUnavailable
from service.store.counters import Counters, Served, ad_and_owner
from service.store.ledger import ChargeRequest, Ledger

MONDAY, TUESDAY = date(2030, 1, 7), date(2030, 1, 8)
SERVED = Served(
    eligible=["Ad-1", "Ad-2"],
    shown={"Ad-1": "adv-1"},
    excluded=[("Ad-3", "paused"), ("Ad-4", "paused"), ("Ad-3", "duplicate")],
)


@pytest.fixture
def counters(store: Store, namespace: str) -> Counters:
    return Counters(store, namespace)


async def charge(store: Store, namespace: str, day: date, **counts: int) -> None:
    """What a charge of Ad-1 adds, field by field as the layout of the keys says."""
    for metric, count in counts.items():
        key = f"{{{namespace}}}:count:{day}"
        await store.run(
            lambda redis, key=key, field=f"{metric}\x1fAd-1", n=count: redis.hincrby(key, field, n)
        )


async def test_an_answer_is_counted_for_every_candidate(counters: Counters) -> None:
    await counters.record(MONDAY, SERVED)
    counted = await counters.read(MONDAY)
    assert counted.ads == {
        "Ad-1": Figures(eligible=1, shown=1),
        "Ad-2": Figures(eligible=1),
        "Ad-3": Figures(excluded={"paused": 1, "duplicate": 1}),
        "Ad-4": Figures(excluded={"paused": 1}),
    }
    assert (counted.answers, counted.held_out) == (1, 0)


async def test_days_are_counted_apart(counters: Counters) -> None:
    await counters.record(MONDAY, SERVED)
    await counters.record(TUESDAY, SERVED)
    await counters.record(TUESDAY, SERVED)
    assert (await counters.read(MONDAY)).ads["Ad-1"].shown == 1
    assert (await counters.read(TUESDAY)).ads["Ad-1"].shown == 2


async def test_answers_at_the_same_time_are_all_counted(counters: Counters) -> None:
    await asyncio.gather(*(counters.record(MONDAY, SERVED) for _ in range(200)))
    assert (await counters.read(MONDAY)).ads["Ad-1"] == Figures(eligible=200, shown=200)


async def test_charges_stand_beside_the_showings(
    counters: Counters, store: Store, namespace: str
) -> None:
    await counters.record(MONDAY, SERVED)
    await charge(store, namespace, MONDAY, clicks=2, impressions_charged=1, spend=3_000_000)
    assert (await counters.read(MONDAY)).ads["Ad-1"] == Figures(
        eligible=1, shown=1, clicks=2, impressions_charged=1, spend_micros=3_000_000
    )


async def test_what_the_ledger_charges_is_what_is_counted(
    counters: Counters,
    catalog: Catalog,
    store: Store,
    namespace: str,
    make_ad: Callable[..., Ad],
) -> None:
    await catalog.put(make_ad("Ad-1", advertiser_id="adv-1", budget={"total": 5}))
    await counters.record(MONDAY, SERVED)
    ledger = Ledger(store, namespace)
    late = datetime(2030, 1, 7, 23, 59, tzinfo=ZoneInfo("Asia/Tokyo"))
    states = [
        (
            await ledger.charge(
                ChargeRequest(
                    response_id=f"resp_{number}",
                    ad_id="Ad-1",
                    advertiser_id="adv-1",
                    event=event,
                    price_micros=2_000_000,
                    bid_micros=2_000_000,
                    position=0,
                    at=late,
                    dedupe_ttl_s=60,
                )
            )
        ).state
        for number, event in enumerate(("click", "impression", "click"))
    ]
    assert states == ["charged", "charged", "budget_exhausted"]
    assert (await counters.read(MONDAY)).ads["Ad-1"] == Figures(
        eligible=1, shown=1, clicks=1, impressions_charged=1, spend_micros=4_000_000
    )
    assert await counters.spend_by_hour(MONDAY) == {"Ad-1": {23: 4_000_000}}
    account = (await counters.advertiser_accounts(["adv-1"], MONDAY))["adv-1"]
    assert (account.spent_total_micros, account.spent_today_micros) == (4_000_000, 4_000_000)


async def test_an_ad_that_becomes_anothers_is_counted_for_each(
    counters: Counters, store: Store, namespace: str
) -> None:
    await charge(store, namespace, MONDAY, clicks=1, spend=2)  # by a version that noted no owner
    await counters.record(MONDAY, Served(eligible=["Ad-1"], shown={"Ad-1": "adv-1"}))
    for _ in range(2):
        await counters.record(MONDAY, Served(eligible=["Ad-1"], shown={"Ad-1": "adv-2"}))
    counted = await counters.read(MONDAY)
    assert counted.ads == {"Ad-1": Figures(eligible=3, shown=3, clicks=1, spend_micros=2)}
    assert {ad_and_owner(name): figures for name, figures in counted.owned.items()} == {
        ("Ad-1", ""): Figures(eligible=3, clicks=1, spend_micros=2),
        ("Ad-1", "adv-1"): Figures(shown=1),
        ("Ad-1", "adv-2"): Figures(shown=2),
    }


async def test_held_out_answers_are_counted_among_all(counters: Counters) -> None:
    await counters.record(MONDAY, SERVED)
    await counters.record(MONDAY, Served(is_held_out=True))
    counted = await counters.read(MONDAY)
    assert (counted.answers, counted.held_out) == (2, 1)


async def test_ads_that_do_not_exist_take_no_room_of_their_own(counters: Counters) -> None:
    invented = [(f"Ad-{number}", "unknown") for number in range(200)]
    await counters.record(MONDAY, Served(excluded=invented))
    counted = await counters.read(MONDAY)
    assert (counted.ads, counted.unknown) == ({}, 200)


async def test_more_ads_than_one_command_reads(counters: Counters) -> None:
    ids = [f"Ad-{number}" for number in range(5_000)]
    await counters.record(MONDAY, Served(eligible=ids, shown=dict.fromkeys(ids, "adv-1")))
    counted = (await counters.read(MONDAY)).ads
    assert counted == dict.fromkeys(ids, Figures(eligible=1, shown=1))
    assert await counters.advertisers(ids) == dict.fromkeys(ids, "adv-1")


async def test_the_advertiser_of_a_shown_ad_is_remembered(counters: Counters) -> None:
    await counters.record(MONDAY, SERVED)
    assert await counters.advertisers(["Ad-1", "Ad-2"]) == {"Ad-1": "adv-1"}
    assert await counters.advertisers([]) == {}


async def test_spend_by_hour(counters: Counters, store: Store, namespace: str) -> None:
    key = f"{{{namespace}}}:count:hour:{MONDAY}"
    spend = {"spend\x1fAd-1\x1f00": 5, "spend\x1fAd-1\x1f23": 7, "spend\x1fAd-2\x1f09": 1}
    await store.run(lambda redis: redis.hset(key, mapping=spend))
    assert await counters.spend_by_hour(MONDAY) == {"Ad-1": {0: 5, 23: 7}, "Ad-2": {9: 1}}


async def test_counting_can_travel_with_other_commands(counters: Counters, store: Store) -> None:
    async def together(redis: Redis) -> None:
        pipeline = redis.pipeline(transaction=False)
        counters.count(pipeline, MONDAY, SERVED)
        counters.count(pipeline, MONDAY, SERVED)
        await pipeline.execute()

    await store.run(together)
    assert (await counters.read(MONDAY)).answers == 2


async def test_counts_are_kept_for_more_than_a_year_and_then_go(
    counters: Counters, store: Store, namespace: str
) -> None:
    hours = f"{{{namespace}}}:count:hour:{MONDAY}"
    await store.run(lambda redis: redis.hset(hours, "spend\x1fAd-1\x1f10", "5"))
    await counters.record(MONDAY, SERVED)
    for key in (hours, f"{{{namespace}}}:count:{MONDAY}"):
        left_s = await store.run(lambda redis, key=key: redis.ttl(key))
        assert 366 * 86_400 < left_s <= 400 * 86_400


async def test_namespaces_are_counted_apart(counters: Counters, store: Store) -> None:
    await counters.record(MONDAY, SERVED)
    assert (await Counters(store, "another").read(MONDAY)).ads == {}


async def test_a_store_that_is_away_is_told(
    own_store: Store, valkey_pid: Callable[[Store], Awaitable[int]], namespace: str
) -> None:
    pid = await valkey_pid(own_store)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await Counters(own_store, namespace).record(MONDAY, SERVED)
    finally:
        os.kill(pid, signal.SIGCONT)
