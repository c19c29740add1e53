"""Charges against a real Valkey: once, exactly, within budgets, whoever clicks at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.auction.ad import Ad
from service.auction.charge import charge_id
from service.store.catalog import Catalog
from service.store.connection import Store
from service.store.ledger import Charged, ChargeRequest, ChargeState, Ledger, LedgerEntry, Recorded

AT = datetime(2030, 5, 17, 23, 30, tzinfo=ZoneInfo("Europe/Berlin"))
UNIT = 1_000_000
REQUEST = ChargeRequest(
    response_id="resp_1",
    ad_id="Ad-1",
    advertiser_id="adv-1",
    event="click",
    price_micros=UNIT,
    bid_micros=UNIT,
    position=1,
    at=AT,
    dedupe_ttl_s=100,
    client_event_id="event-1",
)
EXHAUSTED = Charged(ChargeState.BUDGET_EXHAUSTED)
Charge = Callable[..., Awaitable[Charged]]
EnterAd = Callable[..., Awaitable[None]]
EnterAdvertiser = Callable[..., Awaitable[None]]
Hash = Callable[[str], Awaitable[dict[str, int]]]


@pytest.fixture
def ledger(store: Store, namespace: str) -> Ledger:
    return Ledger(store, namespace)


@pytest.fixture
def charge(ledger: Ledger) -> Charge:
    return lambda **changed: ledger.charge(replace(REQUEST, **changed))


@pytest.fixture
def enter_ad(catalog: Catalog, make_ad: Callable[..., Ad]) -> EnterAd:
    async def enter(ad_id: str = "Ad-1", **fields: Any) -> None:
        await catalog.put(make_ad(ad_id, advertiser_id="adv-1", **fields))

    return enter


@pytest.fixture
def taken(store: Store, namespace: str) -> Hash:
    async def read(key: str) -> dict[str, int]:
        raw: dict[Any, Any] = await store.run(lambda r: r.hgetall(f"{{{namespace}}}:{key}"))
        return {field.decode(): int(value) for field, value in raw.items()}

    return read


async def all_entries(ledger: Ledger) -> list[LedgerEntry]:
    return [entry async for entry in ledger.entries()]


async def test_a_charge_is_entered_and_taken_from_every_budget(
    charge: Charge, ledger: Ledger, enter_ad: EnterAd, taken: Hash
) -> None:
    await enter_ad(budget={"total": 10, "daily": 3})
    made = await charge(bid_micros=2 * UNIT, position=3)
    assert made == Charged(ChargeState.CHARGED, charge_id("resp_1", "Ad-1"), UNIT)
    (entry,) = await all_entries(ledger)
    assert entry == LedgerEntry(
        position_in_stream=entry.position_in_stream,
        charge_id=charge_id("resp_1", "Ad-1"),
        response_id="resp_1",
        ad_id="Ad-1",
        advertiser_id="adv-1",
        event="click",
        price_micros=UNIT,
        bid_micros=2 * UNIT,
        position=3,
        day="2030-05-17",
        at_ms=int(AT.timestamp()) * 1000,
        limits_micros=(10 * UNIT, 3 * UNIT, None, None),
    )
    for key in ("spent:total", "spent:2030-05-17"):
        assert await taken(key) == {"Ad-1": UNIT}
    for key in ("spent:advertisers:total", "spent:advertisers:2030-05-17"):
        assert await taken(key) == {"adv-1": UNIT}


async def test_reports_count_it_by_the_day_and_hour_of_the_time_zone(
    charge: Charge, enter_ad: EnterAd, taken: Hash
) -> None:
    await enter_ad()
    await charge()
    await charge(response_id="resp_2", event="impression", price_micros=5)
    assert await taken("count:2030-05-17") == {
        "clicks\x1fAd-1\x1fadv-1": 1,
        "impressions_charged\x1fAd-1\x1fadv-1": 1,
        "spend\x1fAd-1\x1fadv-1": UNIT + 5,
    }
    assert await taken("count:hour:2030-05-17") == {"spend\x1fAd-1\x1f23": UNIT + 5}


class TestRepetition:
    @pytest.fixture(autouse=True)
    async def _charged(self, enter_ad: EnterAd, charge: Charge) -> None:
        await enter_ad(budget={"total": 10})
        await charge()

    async def test_of_the_same_event_replays_the_charge(self, charge: Charge) -> None:
        made = charge_id("resp_1", "Ad-1")
        expected = Charged(ChargeState.DUPLICATE, made, UNIT, replayed=True)
        assert await charge() == expected
        # what was charged stays what it was, whatever a later report says
        assert await charge(price_micros=7, bid_micros=7) == expected

    @pytest.mark.parametrize("event_id", ["event-2", None])
    async def test_of_another_event_is_a_duplicate(
        self, charge: Charge, event_id: str | None
    ) -> None:
        assert await charge(client_event_id=event_id) == Charged(ChargeState.DUPLICATE)

    async def test_is_never_charged(self, charge: Charge, ledger: Ledger, taken: Hash) -> None:
        for event_id in ("event-1", "event-2", None):
            await charge(client_event_id=event_id, event="impression")
        assert len(await all_entries(ledger)) == await ledger.count() == 1
        assert await taken("spent:total") == {"Ad-1": UNIT}
        assert (await taken("count:2030-05-17"))["clicks\x1fAd-1\x1fadv-1"] == 1

    async def test_another_ad_or_answer_is_no_repetition(
        self, charge: Charge, enter_ad: EnterAd
    ) -> None:
        await enter_ad("Ad-2")
        assert (await charge(ad_id="Ad-2")).state is ChargeState.CHARGED
        assert (await charge(response_id="resp_2")).state is ChargeState.CHARGED

    async def test_is_remembered_for_as_long_as_was_asked(
        self, charge: Charge, store: Store, namespace: str
    ) -> None:
        key = f"{{{namespace}}}:charged:resp_1"
        assert 90 < await store.run(lambda redis: redis.ttl(key)) <= 100

    async def test_any_printable_event_name_is_kept(self, charge: Charge) -> None:
        odd = 'a|b,"c" ünï 靴'
        await charge(response_id="resp_9", client_event_id=odd)
        assert (await charge(response_id="resp_9", client_event_id=odd)).replayed


async def test_two_events_without_a_name_are_not_the_same_event(
    charge: Charge, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await charge(client_event_id=None)
    assert await charge(client_event_id=None) == Charged(ChargeState.DUPLICATE)


class TestBudgets:
    @pytest.mark.parametrize(
        ("budget", "is_covered"),
        [
            ({}, True),
            ({"total": 0}, False),
            ({"daily": 0}, False),
            ({"total": "0.999999"}, False),
            ({"total": 1}, True),
            ({"daily": "0.999999", "total": 9}, False),
            ({"daily": 1, "total": 1}, True),
            ({"total": "999999999.999999"}, True),
        ],
    )
    async def test_of_the_ad(
        self, charge: Charge, enter_ad: EnterAd, budget: dict[str, Any], is_covered: bool
    ) -> None:
        await enter_ad(budget=budget)
        assert ((await charge()).state is ChargeState.CHARGED) is is_covered

    async def test_large_ones_are_exact_to_the_last_micro(
        self, charge: Charge, enter_ad: EnterAd, store: Store, namespace: str
    ) -> None:
        await enter_ad(budget={"total": "999999999.999999"})
        spent = 10**15 - 1 - UNIT
        key = f"{{{namespace}}}:spent:total"
        await store.run(lambda redis: redis.hset(key, "Ad-1", spent + 1))
        assert await charge() == EXHAUSTED
        await store.run(lambda redis: redis.hset(key, "Ad-1", spent))
        assert (await charge()).state is ChargeState.CHARGED

    @pytest.mark.parametrize("limit", ["total", "daily"])
    async def test_that_do_not_cover_the_price_leave_everything_as_it_was(
        self, charge: Charge, ledger: Ledger, enter_ad: EnterAd, taken: Hash, limit: str
    ) -> None:
        await enter_ad(budget={limit: "1.5"})
        assert (await charge()).state is ChargeState.CHARGED
        assert await charge(response_id="resp_2") == EXHAUSTED
        assert len(await all_entries(ledger)) == 1
        assert await taken("spent:total") == {"Ad-1": UNIT}
        assert await taken("spent:advertisers:2030-05-17") == {"adv-1": UNIT}
        assert await ledger.charges("resp_2") == {}

    async def test_a_new_day_has_a_new_daily_budget_and_the_old_total(
        self, charge: Charge, enter_ad: EnterAd
    ) -> None:
        await enter_ad(budget={"daily": 1, "total": 2})
        days = [AT.replace(day=day) for day in (17, 18, 19)]
        states = [(await charge(response_id=f"resp_{at.day}", at=at)).state for at in days]
        assert states == [ChargeState.CHARGED, ChargeState.CHARGED, ChargeState.BUDGET_EXHAUSTED]

    async def test_refused_by_a_budget_it_can_succeed_after_a_top_up(
        self, charge: Charge, enter_ad: EnterAd
    ) -> None:
        await enter_ad(budget={"total": "0.5"})
        assert await charge() == EXHAUSTED
        await enter_ad(budget={"total": 1})
        assert (await charge()).state is ChargeState.CHARGED

    async def test_a_paused_ad_still_pays_for_what_was_shown(
        self, charge: Charge, enter_ad: EnterAd
    ) -> None:
        await enter_ad(status="paused")
        assert (await charge()).state is ChargeState.CHARGED

    async def test_a_removed_ad_has_none(
        self, charge: Charge, catalog: Catalog, enter_ad: EnterAd
    ) -> None:
        await enter_ad()
        await catalog.delete("Ad-1")
        assert await charge() == EXHAUSTED


class TestManyAtOnce:
    async def test_the_last_cent_is_taken_once(
        self, charge: Charge, ledger: Ledger, enter_ad: EnterAd, taken: Hash
    ) -> None:
        await enter_ad(budget={"total": "0.01"})
        cent = UNIT // 100
        clicks = (charge(response_id=f"resp_{n}", price_micros=cent) for n in range(80))
        states = Counter(made.state for made in await asyncio.gather(*clicks))
        assert states == {ChargeState.CHARGED: 1, ChargeState.BUDGET_EXHAUSTED: 79}
        assert await taken("spent:total") == {"Ad-1": cent}
        assert len(await all_entries(ledger)) == 1

    async def test_a_budget_is_taken_to_its_end_and_no_further(
        self, charge: Charge, ledger: Ledger, enter_ad: EnterAd, taken: Hash
    ) -> None:
        await enter_ad(budget={"daily": 10})
        clicks = (charge(response_id=f"resp_{n}", price_micros=3 * UNIT) for n in range(60))
        states = Counter(made.state for made in await asyncio.gather(*clicks))
        assert states[ChargeState.CHARGED] == 3
        assert await taken("spent:2030-05-17") == {"Ad-1": 9 * UNIT}
        assert len(await all_entries(ledger)) == 3

    async def test_one_event_reported_by_many_is_charged_once(
        self, charge: Charge, enter_ad: EnterAd, taken: Hash
    ) -> None:
        await enter_ad()
        outcomes = await asyncio.gather(*(charge() for _ in range(60)))
        assert Counter(made.state for made in outcomes) == {
            ChargeState.CHARGED: 1,
            ChargeState.DUPLICATE: 59,
        }
        assert {(made.charge_id, made.amount_micros) for made in outcomes} == {
            (charge_id("resp_1", "Ad-1"), UNIT)
        }
        assert await taken("spent:advertisers:total") == {"adv-1": UNIT}


async def test_an_answers_charges_travel_on_a_pipeline(
    ledger: Ledger, store: Store, namespace: str, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await enter_ad("Ad-2", budget={"total": "0.5"})
    await enter_ad("Ad-3")
    requests = [replace(REQUEST, ad_id=f"Ad-{number}", position=number) for number in (1, 2, 3)]

    async def run(redis: Any) -> None:
        pipeline = redis.pipeline(transaction=True)
        pipeline.set(f"{{{namespace}}}:other", 1)
        ledger.charge_all(pipeline, requests)
        await pipeline.execute()

    for _ in range(2):
        await store.run(run)
    made = [(entry.ad_id, entry.position) for entry in await all_entries(ledger)]
    assert made == [("Ad-1", 1), ("Ad-3", 3)]


async def test_only_what_is_parked_is_charged_where_that_is_asked(
    ledger: Ledger, store: Store, namespace: str, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await enter_ad("Ad-2")
    requests = [replace(REQUEST, ad_id=f"Ad-{number}") for number in (1, 2)]
    parked = f"{{{namespace}}}:parked:resp_1"
    await store.run(lambda redis: redis.sadd(parked, "Ad-2"))
    await store.run(lambda redis: ledger.charge_all(redis, requests, parked))
    assert [entry.ad_id for entry in await all_entries(ledger)] == ["Ad-2"]
    assert not await store.run(lambda redis: redis.exists(parked))


async def test_counts_of_a_day_without_answers_go_too(
    charge: Charge, store: Store, namespace: str, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await charge()
    for name in ("count:2030-05-17", "count:hour:2030-05-17"):
        key = f"{{{namespace}}}:{name}"
        left_s = await store.run(lambda redis, key=key: redis.ttl(key))
        assert 366 * 86_400 < left_s <= 400 * 86_400


async def test_a_server_that_forgot_its_scripts_is_told_them_again(
    charge: Charge, store: Store, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await store.run(lambda redis: redis.script_flush())
    assert (await charge()).state is ChargeState.CHARGED


async def test_an_answers_charges_can_be_read(
    charge: Charge, ledger: Ledger, enter_ad: EnterAd
) -> None:
    await enter_ad("Ad-1")
    await enter_ad("Ad-2")
    await charge()
    await charge(ad_id="Ad-2", event="impression", price_micros=5, client_event_id=None)
    at_ms = int(AT.timestamp()) * 1000
    assert await ledger.charges("resp_1") == {
        "Ad-1": Recorded(charge_id("resp_1", "Ad-1"), "click", UNIT, at_ms),
        "Ad-2": Recorded(charge_id("resp_1", "Ad-2"), "impression", 5, at_ms),
    }
    assert await ledger.charges("resp_2") == {}


async def test_entries_come_in_order_over_many_pages(
    charge: Charge, ledger: Ledger, enter_ad: EnterAd
) -> None:
    await enter_ad()
    for number in range(25):
        await charge(response_id=f"resp_{number}", at=AT.astimezone(UTC))
    entries = await all_entries(ledger)
    assert [e.response_id for e in entries] == [f"resp_{n}" for n in range(25)]
    paged: list[LedgerEntry] = []
    while page := await ledger.page(paged[-1].position_in_stream if paged else None, limit=10):
        paged += page
    assert paged == entries
    later = [e async for e in ledger.entries(after=entries[20].position_in_stream)]
    assert later == entries[21:]


async def test_all_keys_share_one_slot(
    charge: Charge, store: Store, namespace: str, enter_ad: EnterAd
) -> None:
    await enter_ad()
    await charge()
    keys = await store.run(lambda redis: redis.keys(f"*{namespace}*"))
    assert len(keys) == 10
    assert all(key.decode().startswith(f"{{{namespace}}}:") for key in keys)
