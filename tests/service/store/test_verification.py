"""A sound ledger is found sound, and every kind of damage is found."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import count, takewhile
from typing import Any

import pytest

from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.connection import Store
from service.store.ledger import ChargeRequest, ChargeState, Ledger
from service.store.verification import Invariant, ReceiptCheck, Verification, verify

AT = datetime(2030, 5, 17, 12, tzinfo=UTC)
Command = Callable[..., Awaitable[Any]]


@pytest.fixture
def ledger(store: Store, namespace: str) -> Ledger:
    return Ledger(store, namespace)


def request(number: int, **changed: Any) -> ChargeRequest:
    fields: dict[str, Any] = {
        "response_id": f"resp_{number}",
        "ad_id": f"Ad-{number % 3}",
        "advertiser_id": f"adv-{number % 2}",
        "event": "click",
        "price_micros": 1_000 + number,
        "bid_micros": 1_000 + number,
        "position": 1,
        "at": AT.replace(day=17 + number % 2),
        "dedupe_ttl_s": 100,
    }
    return ChargeRequest(**fields | changed)


@pytest.fixture
async def _charges(
    ledger: Ledger, catalog: Catalog, store: Store, namespace: str, make_ad: Callable[..., Ad]
) -> None:
    """30 charges over 3 ads, 2 advertisers and 2 days, on limited and unlimited budgets."""
    for number in range(3):
        budget = {"total": 1, "daily": "0.5"} if number else {}
        await catalog.put(make_ad(f"Ad-{number}", budget=budget))
    payer = {"advertiser_id": "adv-1", "budget": {"total": 1}}
    await Advertisers(store, namespace).put(Advertiser.model_validate(payer))
    for number in range(30):
        assert (await ledger.charge(request(number))).state is ChargeState.CHARGED


@pytest.fixture
def check(store: Store, namespace: str) -> Callable[..., Awaitable[Verification]]:
    return lambda receipts=None: verify(store, namespace, receipts)


@pytest.fixture
def damage(store: Store, namespace: str) -> Command:
    async def run(command: str, key: str, *arguments: Any) -> Any:
        method = lambda redis: getattr(redis, command)(f"{{{namespace}}}:{key}", *arguments)  # noqa: E731
        return await store.run(method)

    return run


def broken(verification: Verification) -> set[Invariant]:
    assert verification.is_sound == (
        not any(finding.broken for finding in verification.findings.values())
    )
    return {name for name, finding in verification.findings.items() if finding.broken}


async def test_an_empty_ledger_is_sound(check: Command) -> None:
    found = await check()
    assert (found.entries, found.sum_micros, found.is_sound) == (0, 0, True)


@pytest.mark.usefixtures("_charges")
class TestBooks:
    async def test_a_sound_ledger_has_everything_checked(self, check: Command) -> None:
        found = await check()
        assert (found.entries, found.sum_micros) == (30, 30 * 1_000 + sum(range(30)))
        assert broken(found) == set()
        counts = {name: finding.checked for name, finding in found.findings.items()}
        assert counts == {
            Invariant.ADS_BALANCE: 9,
            Invariant.ADVERTISERS_BALANCE: 4,  # each has its days for itself
            Invariant.CHARGED_ONCE: 30,
            Invariant.WITHIN_BUDGET: 30,
            Invariant.WITHIN_BID: 30,
            Invariant.RECEIPTED: 0,
        }

    async def test_a_limit_that_was_lowered_since_breaks_nothing(
        self, check: Command, catalog: Catalog, make_ad: Callable[..., Ad]
    ) -> None:
        await catalog.put(make_ad("Ad-1", budget={"total": "0.000001"}))
        assert broken(await check()) == set()

    async def test_a_removed_ad_breaks_nothing(self, check: Command, catalog: Catalog) -> None:
        await catalog.delete("Ad-1")
        assert broken(await check()) == set()

    @pytest.mark.parametrize(
        ("key", "field", "invariant"),
        [
            ("spent:total", "Ad-1", Invariant.ADS_BALANCE),
            ("spent:2030-05-18", "Ad-1", Invariant.ADS_BALANCE),
            ("spent:total", "Ad-9", Invariant.ADS_BALANCE),
            ("spent:advertisers:total", "adv-1", Invariant.ADVERTISERS_BALANCE),
            ("spent:advertisers:2030-05-18", "adv-1", Invariant.ADVERTISERS_BALANCE),
        ],
    )
    @pytest.mark.parametrize("micros", [1, -1])
    async def test_a_micro_too_much_or_too_little_is_found(
        self,
        check: Command,
        damage: Command,
        key: str,
        field: str,
        invariant: Invariant,
        micros: int,
    ) -> None:
        await damage("hincrby", key, field, micros)
        found = await check()
        assert broken(found) == {invariant}
        (example,) = found.findings[invariant].examples
        assert field in example

    async def test_a_lost_entry_is_found(self, check: Command, damage: Command) -> None:
        ((position, _),) = await damage("xrange", "ledger", "-", "+", 1)
        await damage("xdel", "ledger", position)
        assert broken(await check()) == {Invariant.ADS_BALANCE, Invariant.ADVERTISERS_BALANCE}

    async def test_a_doubled_charge_is_found_and_named(
        self, check: Command, damage: Command, ledger: Ledger
    ) -> None:
        await damage("delete", "charged:resp_7")
        await ledger.charge(request(7))
        found = await check()
        assert broken(found) == {Invariant.CHARGED_ONCE}
        finding = found.findings[Invariant.CHARGED_ONCE]
        assert (finding.checked, finding.broken) == (31, 1)
        assert finding.examples == ["resp_7, Ad-1: charged again"]

    @pytest.mark.parametrize(
        ("key", "days"), [("spent:2030-05-18", [18]), ("spent:total", [19, 20])]
    )
    async def test_an_overspent_budget_is_found(
        self, check: Command, damage: Command, ledger: Ledger, key: str, days: list[int]
    ) -> None:
        """As by a charge that read too little as spent."""
        await damage("hset", key, "Ad-1", 0)
        for number, day in enumerate(days, 31):
            almost = request(
                number,
                ad_id="Ad-1",
                advertiser_id="adv-0",
                price_micros=497_000,
                bid_micros=497_000,
                at=AT.replace(day=day),
            )
            assert (await ledger.charge(almost)).state is ChargeState.CHARGED
        finding = (await check()).findings[Invariant.WITHIN_BUDGET]
        assert (finding.broken, finding.checked) == (1, 30 + len(days))

    @pytest.mark.parametrize(("price", "bid"), [(1_001, 1_000), (0, 5), (-5, 5)])
    async def test_a_price_above_the_bid_or_of_nothing_is_found(
        self, check: Command, ledger: Ledger, price: int, bid: int
    ) -> None:
        await ledger.charge(request(31, price_micros=price, bid_micros=bid))
        assert broken(await check()) == {Invariant.WITHIN_BID}

    async def test_charges_without_a_receipt_are_found_while_receipts_are_kept(
        self, check: Command
    ) -> None:
        asked: list[str] = []

        async def find_missing(response_ids: Sequence[str]) -> Collection[str]:
            asked.extend(response_ids)
            return {"resp_3", "resp_4"} & set(response_ids)

        second_day = int(AT.replace(day=18).timestamp() * 1000)
        found = await check(ReceiptCheck(find_missing, second_day))
        assert sorted(asked) == sorted(f"resp_{n}" for n in range(1, 30, 2))
        finding = found.findings[Invariant.RECEIPTED]
        assert (finding.checked, finding.broken) == (15, 1)
        assert "resp_3" in finding.examples[0]


async def test_many_faults_are_counted_and_some_named(
    check: Command, ledger: Ledger, catalog: Catalog, make_ad: Callable[..., Ad]
) -> None:
    await catalog.put(make_ad("Ad-1"))
    for number in range(50):
        await ledger.charge(request(number, ad_id="Ad-1", price_micros=2_000))
    finding = (await check()).findings[Invariant.WITHIN_BID]
    assert (finding.broken, len(finding.examples)) == (50, 20)


async def test_a_ledger_is_sound_while_charges_go_on(
    check: Command, ledger: Ledger, catalog: Catalog, make_ad: Callable[..., Ad]
) -> None:
    for number in range(3):
        await catalog.put(make_ad(f"Ad-{number}"))
    for number in range(1_500):  # more than a page
        await ledger.charge(request(number))

    is_enough = asyncio.Event()

    async def go_on() -> None:
        for number in takewhile(lambda _: not is_enough.is_set(), count(1_500)):
            # a day of its own now and then, which the reader cannot have known of
            day = AT.replace(day=1 + number // 50 % 28)
            await ledger.charge(request(number, at=day))

    charging = asyncio.create_task(go_on())
    sizes = []
    for _ in range(5):
        found = await check()
        assert broken(found) == set()
        sizes.append(found.entries)
    is_enough.set()
    await charging
    assert sizes == sorted(set(sizes))
