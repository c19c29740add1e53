"""Serving, clicking, replaying, expiring, topping up, pausing and the clock, in any order.

A plain model in Python says what must happen; the real store must agree, step by step, and its
ledger must be sound at the end.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from service.auction.ad import Ad, Budget
from service.auction.advertiser import Advertiser
from service.auction.charge import charge_id
from service.auction.eligibility import Bid, Exclusion, decide
from service.settings import StoreSettings
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.connection import Store, open_store
from service.store.ledger import Charged, ChargeRequest, ChargeState, Ledger
from service.store.verification import verify

ADS = {"Ad-1": "adv-1", "Ad-2": "adv-1", "Ad-3": "adv-2"}
PAYERS = ("adv-1", "adv-2")
TOKEN_LIFE = timedelta(hours=20)
_numbers = count(1)

amounts = st.integers(1, 40)  # micros: so that budgets are met exactly now and then
limits = st.none() | st.integers(0, 120)
names = st.sampled_from([*ADS, *PAYERS])


@dataclass(frozen=True)
class Token:
    """What a click token says: the terms of one ad in one answer."""

    response_id: str
    ad_id: str
    price: int
    expires_at: datetime


@dataclass
class Account:
    """The model's ad or advertiser."""

    total: int | None = None
    daily: int | None = None
    is_paused: bool = False


class Money(RuleBasedStateMachine):
    """Set by the test: a loop to run things on, and a store that is open on it."""

    runner: asyncio.Runner
    store: Store
    tokens = Bundle("tokens")

    def run(self, task: Any) -> Any:
        return self.runner.run(task)

    @initialize(
        budgets=st.fixed_dictionaries(dict.fromkeys([*ADS, *PAYERS], st.tuples(limits, limits)))
    )
    def enter(self, budgets: dict[str, tuple[int | None, int | None]]) -> None:
        namespace = f"stateful-{next(_numbers)}"
        self.namespace = namespace
        self.catalog = Catalog(self.store, namespace)
        self.advertisers = Advertisers(self.store, namespace)
        self.ledger = Ledger(self.store, namespace)
        self.now = datetime(2030, 5, 17, 6, tzinfo=UTC)
        self.accounts = {name: Account(*budgets[name]) for name in budgets}
        self.charged: dict[tuple[str, str], tuple[int, str | None]] = {}
        self.spent: Counter[tuple[str, date | None]] = Counter()
        self.answers = 0
        for name in self.accounts:
            self.save(name)

    def save(self, name: str) -> None:
        """Put the model's account into the store."""
        account = self.accounts[name]
        status = "paused" if account.is_paused else "active"
        budget = Budget().model_copy(
            update={"total_micros": account.total, "daily_micros": account.daily}
        )
        if name in ADS:
            ad = Ad(
                ad_id=name,
                title=f"Boots {name}",
                category="boots",
                landing_url="https://boots.example/",
                advertiser_id=ADS[name],
                status=status,
                budget=budget,
            )
            self.run(self.catalog.put(ad))
        else:
            payer = Advertiser(advertiser_id=name, status=status, budget=budget)
            self.run(self.advertisers.put(payer))

    def covers(self, ad_id: str, price: int) -> bool:
        """Whether all four budgets cover `price` now."""
        return all(
            limit is None or self.spent[name, day] + price <= limit
            for name in (ad_id, ADS[ad_id])
            for limit, day in (
                (self.accounts[name].total, None),
                (self.accounts[name].daily, self.now.date()),
            )
        )

    @rule(target=tokens, bids=st.dictionaries(st.sampled_from(list(ADS)), amounts, min_size=1))
    def serve(self, bids: dict[str, int]) -> Any:
        records = self.run(self.catalog.fetch(list(bids), self.now.date()))
        offers = [Bid(ad_id, bid) for ad_id, bid in bids.items()]
        eligible, excluded = decide(offers, records, 0, "")
        expected: dict[str, Exclusion | None] = {}
        for ad_id, bid in bids.items():
            is_paused = self.accounts[ad_id].is_paused or self.accounts[ADS[ad_id]].is_paused
            exhausted = None if self.covers(ad_id, bid) else Exclusion.BUDGET_EXHAUSTED
            expected[ad_id] = Exclusion.PAUSED if is_paused else exhausted
        found = {offer.ad.ad_id: None for offer in eligible} | {e.ad_id: e.reason for e in excluded}
        assert found == expected
        self.answers += 1
        expires_at = self.now + TOKEN_LIFE
        return multiple(
            *(
                Token(f"resp_{self.answers}", offer.ad.ad_id, offer.bid_micros, expires_at)
                for offer in eligible
            )
        )

    @rule(token=tokens, event=st.none() | st.sampled_from(["event-1", "event-2"]))
    def click(self, token: Token, event: str | None) -> None:
        """A first click or a repeated one; the caller looks at the token's time, as here."""
        if self.now >= token.expires_at:
            return
        assert self.charge(token, event) == self.expected(token, event)

    @rule(token=tokens, clicks=st.integers(2, 6))
    def click_many_at_once(self, token: Token, clicks: int) -> None:
        if self.now >= token.expires_at:
            return
        events = [f"at-once-{number}" for number in range(clicks)]
        first = self.expected(token, "")

        async def at_once() -> list[Charged]:
            return await asyncio.gather(
                *(self.ledger.charge(self.request(token, e)) for e in events)
            )

        states = Counter(outcome.state for outcome in self.run(at_once()))
        if first.state is ChargeState.CHARGED:
            assert states == {ChargeState.CHARGED: 1, ChargeState.DUPLICATE: clicks - 1}
            self.charged[token.response_id, token.ad_id] = (token.price, "at once")
        else:
            assert states == {first.state: clicks}

    def expected(self, token: Token, event: str | None) -> Charged:
        """What the model says of a click, which it then remembers."""
        place = (token.response_id, token.ad_id)
        if place in self.charged:
            price, first_event = self.charged[place]
            if event is not None and event == first_event:
                return Charged(ChargeState.DUPLICATE, charge_id(*place), price, replayed=True)
            return Charged(ChargeState.DUPLICATE)
        if not self.covers(token.ad_id, token.price):
            return Charged(ChargeState.BUDGET_EXHAUSTED)
        self.charged[place] = (token.price, event)
        for name in (token.ad_id, ADS[token.ad_id]):
            self.spent[name, None] += token.price
            self.spent[name, self.now.date()] += token.price
        return Charged(ChargeState.CHARGED, charge_id(*place), token.price)

    def request(self, token: Token, event: str | None) -> ChargeRequest:
        return ChargeRequest(
            response_id=token.response_id,
            ad_id=token.ad_id,
            advertiser_id=ADS[token.ad_id],
            event="click",
            price_micros=token.price,
            bid_micros=token.price,
            position=1,
            at=self.now,
            dedupe_ttl_s=3_600,
            client_event_id=event,
        )

    def charge(self, token: Token, event: str | None) -> Charged:
        outcome: Charged = self.run(self.ledger.charge(self.request(token, event)))
        return outcome

    @rule(token=consumes(tokens))
    def forget(self, token: Token) -> None:
        """A user goes away without a click."""

    @rule(hours=st.sampled_from([1, 7, 19, 24]))
    def move_the_clock(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(name=names)
    def pause_or_resume(self, name: str) -> None:
        self.accounts[name] = replace(
            self.accounts[name], is_paused=not self.accounts[name].is_paused
        )
        self.save(name)

    @rule(name=names, total=limits, daily=limits)
    def set_budget(self, name: str, total: int | None, daily: int | None) -> None:
        """Also to less than what was spent, or to none."""
        self.accounts[name] = replace(self.accounts[name], total=total, daily=daily)
        self.save(name)

    @rule(name=names, amount=amounts, reference=st.sampled_from(["june", "july"]))
    def top_up(self, name: str, amount: int, reference: str) -> None:
        account = self.accounts[name]
        if account.total is None:
            return
        records: Any = self.catalog if name in ADS else self.advertisers
        once = f"{reference}-{amount}"
        done = self.run(records.top_up(name, amount, once))
        if not done.replayed:
            account.total += amount
        assert done.record.budget.total_micros == account.total

    def teardown(self) -> None:
        if not hasattr(self, "namespace"):
            return
        found = self.run(verify(self.store, self.namespace))
        assert found.is_sound, found
        assert found.entries == len(self.charged)
        assert found.sum_micros == sum(price for price, _ in self.charged.values())
        entries = self.run(self.ledger.page(None))
        assert {(entry.response_id, entry.ad_id) for entry in entries} == set(self.charged)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Money]]:
    with asyncio.Runner() as runner:
        directory: Path = tmp_path_factory.mktemp("money")
        opened = open_store(StoreSettings(timeout_ms=10_000), directory, lambda _: None)
        Money.runner, Money.store = runner, runner.run(opened.__aenter__())
        yield Money
        runner.run(opened.__aexit__(None, None, None))


def test_the_store_and_a_plain_model_agree(machine: type[Money]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
