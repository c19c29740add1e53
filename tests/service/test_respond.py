"""The pipeline's behaviour where a real engine can't be made to misbehave: a scripted one can."""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from scripted import ScriptedEngine, scripted_services

from models.contract.prompt import Prompt, Turn
from models.engine.interface import (
    EngineDead,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    PromptRefused,
    PromptTooLong,
)
from service.answer import AdPart, Answer, Ask, TextPart
from service.auction.ad import Ad
from service.auction.click_token import read
from service.auction.eligibility import Bid
from service.click import ClickOutcome, settle_or_park
from service.errors import (
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    ProblemError,
    PromptTooLarge,
)
from service.receipt import pseudonym
from service.respond import respond
from service.services import Services
from service.settings import AuctionSettings, StoreSettings
from service.store.catalog import Catalog
from service.store.connection import Store, open_store
from service.store.receipts import Receipts


def ad(number: int, title: str) -> Ad:
    return Ad.model_validate(
        {
            "ad_id": f"Ad-{number}",
            "title": title,
            "description": "x" * 60,
            "category": "shoes",
            "landing_url": f"https://shop.example/{number}",
            "advertiser_id": "adv-1",
        }
    )


ADS = [ad(1, "Swift Shoes"), ad(2, "Slow @ Steady Shoes"), ad(3, "Third")]


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    directory: Path = tmp_path_factory.mktemp("store")
    async with open_store(StoreSettings(), directory, lambda line: None) as store:
        await Catalog(store, "test").import_many(ADS)
        yield store


def ask(**changes: Any) -> Ask:
    return replace(
        Ask(
            response_id="resp_" + "0" * 32,
            query="Which shoes?",
            bids=tuple(Bid(ad.ad_id, 1_250_000 + i) for i, ad in enumerate(ADS)),
            conversation=(),
            profile=None,
            user_id=None,
            max_ads=2,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_tokens=100,
            seed=None,
            received_at=monotonic(),
            deadline_at=monotonic() + 30,
            now=datetime.now(UTC),
            caller="anonymous",
        ),
        **changes,
    )


async def run(asked: Ask, having: Services) -> tuple[list[TextPart | AdPart], Answer]:
    *parts, answer = [part async for part in respond(asked, having)]
    assert isinstance(answer, Answer)
    return [part for part in parts if not isinstance(part, Answer)], answer


class TestInsertions:
    async def test_a_marker_split_over_chunks_is_one_ad_at_its_bid(self, store: Store) -> None:
        engine = ScriptedEngine(["Try ", "@Swi", "ft Sho", "es@", "[Ad-", "1]", " today."])
        parts, answer = await run(ask(), scripted_services(store, engine))
        assert [type(part).__name__ for part in parts] == ["TextPart", "AdPart", "TextPart"]
        [shown] = answer.ads
        assert shown.charge.price_micros == 1_250_000
        assert answer.text == "Try @Swift Shoes@[Ad-1] today."
        assert not answer.faults

    async def test_faulty_insertions_are_reported_and_not_charged(self, store: Store) -> None:
        engine = ScriptedEngine(["See @Swiftest Shoes@[Ad-1] and @Third@[Ad-9] now."])
        _, answer = await run(ask(), scripted_services(store, engine))
        assert answer.ads == ()
        assert sorted(fault.kind for fault in answer.faults) == ["altered_title", "unknown_id"]

    async def test_no_more_than_max_ads_are_charged_whatever_the_engine_says(
        self, store: Store
    ) -> None:
        engine = ScriptedEngine(["@Third@[Ad-3] @Third@[Ad-3] @Swift Shoes@[Ad-1] x"])
        having = scripted_services(store, engine)
        _, answer = await run(ask(max_ads=1), having)
        assert [part.offer.ad.ad_id for part in answer.ads] == ["Ad-3"]
        assert {fault.kind for fault in answer.faults} == {"duplicate", "over_limit"}

    async def test_charged_impressions_are_measured_with_what_they_cost(self, store: Store) -> None:
        engine = ScriptedEngine(["Try @Swift Shoes@[Ad-1]."])
        auction = AuctionSettings(event="impression", pctr=0.5)
        having = scripted_services(store, engine, auction=auction)
        value = having.metrics.registry.get_sample_value
        for _ in range(2):  # the second is the same answer again: charged once
            await run(ask(response_id="resp_" + "1" * 32), having)
        assert value("llm_auction_spend_micros_total", {"event": "impression"}) == 625_000
        for state in ("charged", "duplicate"):
            labels = {"event": "impression", "state": state}
            assert value("llm_auction_charges_total", labels) == 1

    async def test_one_generation_per_answer(self, store: Store) -> None:
        engine = ScriptedEngine(["Fine."])
        await run(ask(), scripted_services(store, engine))
        assert len(engine.generations) == 1


class TestEnds:
    async def test_the_deadline_keeps_what_was_written_but_never_half_a_marker(
        self, store: Store
    ) -> None:
        engine = ScriptedEngine(["Try ", "@Swift Sh"], pause=True)
        asked = ask(deadline_at=monotonic() + 0.2)
        parts, answer = await run(asked, scripted_services(store, engine))
        assert answer.finish_reason == "deadline"
        assert answer.text == "Try "
        assert parts == [TextPart("Try ")]
        assert engine.is_closed.is_set()

    async def test_closing_aborts_the_engine_and_counts_it(self, store: Store) -> None:
        engine = ScriptedEngine(["Try this", " and that"], pause=True)
        having = scripted_services(store, engine)
        async with aclosing(respond(ask(), having)) as parts:
            await anext(parts)
        assert engine.is_closed.is_set()
        assert having.metrics.registry.get_sample_value("llm_auction_aborted_total") == 1

    @pytest.mark.parametrize(
        ("error", "problem", "status"),
        [
            (EngineOverloaded(), Overloaded, 503),
            (EngineUnavailable(), ModelUnavailable, 503),
            (EngineDead(), ModelUnavailable, 503),
            (PromptTooLong(), PromptTooLarge, 422),
        ],
    )
    async def test_an_engines_error_is_a_problem_for_the_caller(
        self, store: Store, error: EngineError, problem: type[ProblemError], status: int
    ) -> None:
        having = scripted_services(store, ScriptedEngine([error]))
        with pytest.raises(problem) as raised:
            await run(ask(), having)
        assert raised.value.status == status
        value = having.metrics.registry.get_sample_value
        refused = value("llm_auction_refused_total", {"reason": "overloaded"})
        assert (refused == 1) is isinstance(error, EngineOverloaded)
        assert having.life.is_engine_dead is isinstance(error, EngineDead)


class TestAdsThatNobodyReceived:
    AUCTION = AuctionSettings(event="impression", pctr=0.5, frequency_cap=5)

    async def broken_off(self, asked: Ask, having: Services) -> None:
        with contextlib.suppress(ProblemError):
            await run(asked, having)

    async def left(self, asked: Ask, having: Services) -> None:
        async with aclosing(respond(asked, having)) as parts:
            async for part in parts:
                if isinstance(part, AdPart):
                    break

    @pytest.mark.parametrize("end", ["broken_off", "left"])
    @pytest.mark.parametrize("is_streamed", [True, False])
    async def test_are_neither_charged_nor_counted(
        self, store: Store, namespace: str, end: str, is_streamed: bool
    ) -> None:
        script: list[str | EngineError] = ["Try @Swift Shoes@[Ad-1]", " or", EngineUnavailable()]
        having = scripted_services(store, ScriptedEngine(script), namespace, auction=self.AUCTION)
        await having.catalog.import_many(ADS)
        asked = ask(response_id=f"resp_{end}", user_id="u-1", is_streamed=is_streamed)
        await getattr(self, end)(asked, having)
        charged = await having.ledger.charges(asked.response_id)
        showings = await having.showings.read(pseudonym("u-1", having.secret))
        counts = await having.counters.read(asked.now.date())
        receipt = json.loads(await having.receipts.get(asked.response_id) or b"")["receipt"]
        shown = ["Ad-1"] if is_streamed else []
        assert list(charged) == shown
        assert [showing.ad_id for showing in showings] == shown
        assert [ad_id for ad_id, figures in counts.ads.items() if figures.shown] == shown
        assert [insertion["ad_id"] for insertion in receipt["insertions"]] == shown

    async def test_are_those_behind_the_part_that_the_client_left_at(
        self, store: Store, namespace: str
    ) -> None:
        engine = ScriptedEngine(["@Swift Shoes@[Ad-1] or @Third@[Ad-3]."])
        having = scripted_services(store, engine, namespace, auction=self.AUCTION)
        await having.catalog.import_many(ADS)
        await self.left(ask(), having)
        assert list(await having.ledger.charges(ask().response_id)) == ["Ad-1"]


class Died(Exception):
    """The process, at this point."""


class DyingReceipts(Receipts):
    """Dies with the transaction that records an answer: just before it, or just after."""

    def __init__(self, store: Store, dies_before: bool) -> None:
        super().__init__(store, "test", 3_600)
        self.dies_before = dies_before

    async def save(self, *arguments: Any) -> None:
        if not self.dies_before:
            await super().save(*arguments)
        raise Died


class TestClicksWhileTheAnswerIsWritten:
    @pytest.mark.parametrize("dies_before", [True, False])
    async def test_are_charged_with_the_record_or_not_at_all(
        self, store: Store, dies_before: bool
    ) -> None:
        response_id = f"resp_{8 + dies_before:032}"
        engine = ScriptedEngine(["Try @Swift Shoes@[Ad-1]", " or @Third@[Ad-3]."])
        having = scripted_services(store, engine)
        having = replace(having, receipts=DyingReceipts(store, dies_before))
        parked = []

        async def answer_and_click() -> None:
            async for part in respond(ask(response_id=response_id), having):
                if isinstance(part, AdPart) and part.offer.ad.ad_id == "Ad-1":
                    terms = read(part.token or "", having.signing)
                    target = await having.click_targets.find(response_id, "Ad-1")
                    parked.append(await settle_or_park(terms, target, having, datetime.now(UTC)))

        with pytest.raises(Died):
            await answer_and_click()
        assert [settled.outcome for settled in parked] == [ClickOutcome.PARKED]
        made = [
            (entry.ad_id, entry.price_micros, entry.position)
            async for entry in having.ledger.entries()
            if entry.response_id == response_id
        ]
        assert made == ([] if dies_before else [("Ad-1", 1_250_000, 1)])


class TestPrompt:
    async def test_where_not_all_fit_the_lowest_bids_go(self, store: Store) -> None:
        engine = ScriptedEngine(["Fine."])
        whole = scripted_services(store, engine)
        await run(ask(max_tokens=10), whole)
        full = engine.count_tokens(engine.generations[0].prompt)
        engine.max_model_len = full  # type: ignore[misc]
        _, answer = await run(ask(max_tokens=10), whole)
        dropped = {e.ad_id for e in answer.offers.excluded if e.reason == "no_room"}
        assert "Ad-1" in dropped
        assert "Ad-3" not in dropped
        assert engine.count_tokens(engine.generations[1].prompt) <= full - 10

    async def test_a_conversation_beyond_the_context_is_refused(self, store: Store) -> None:
        with pytest.raises(PromptTooLarge, match="3996 tokens"):
            await run(
                ask(query="word " * 8000), scripted_services(store, ScriptedEngine(["Fine."]))
            )

    async def test_no_more_of_it_is_counted_than_shows_that_it_is_too_long(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = ScriptedEngine(["Fine."])
        counted: list[int | None] = []

        def count_tokens(prompt: Prompt, at_most: int | None = None) -> int:
            counted.append(at_most)
            return engine.max_model_len

        monkeypatch.setattr(engine, "count_tokens", count_tokens)
        turns = (Turn("user", "word " * 1600),) * 100
        with pytest.raises(PromptTooLarge):
            await run(ask(conversation=turns, max_tokens=96), scripted_services(store, engine))
        assert counted == [engine.max_model_len - 96]

    async def test_turns_that_the_models_template_does_not_take_are_a_wrong_field(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = ScriptedEngine(["Fine."])

        def count_tokens(prompt: Prompt, at_most: int | None = None) -> int:
            raise PromptRefused("roles must alternate")

        monkeypatch.setattr(engine, "count_tokens", count_tokens)
        with pytest.raises(InvalidRequest) as raised:
            await run(ask(), scripted_services(store, engine))
        assert [(e.loc, e.msg) for e in raised.value.errors] == [
            ("/conversation", "roles must alternate")
        ]

    async def test_order_is_not_the_callers(self, store: Store) -> None:
        engine = ScriptedEngine(["Fine."])
        having = scripted_services(store, engine)
        forwards, backwards = ask(), replace(ask(), bids=ask().bids[::-1])
        await run(forwards, having)
        await run(backwards, having)
        one, two = engine.generations
        assert one.prompt == two.prompt
        assert one.grammar == two.grammar
        assert sorted(one.insertions) == sorted(ad.marked.marker for ad in ADS)

    async def test_a_likely_click_brings_an_ad_forward_and_changes_no_price(
        self, store: Store
    ) -> None:
        def listed(engine: ScriptedEngine) -> list[str]:
            text = "".join(piece.text for piece in engine.generations[0].prompt.messages[0].pieces)
            return sorted((ad.ad_id for ad in ADS), key=lambda ad_id: text.index(f'"{ad_id}"'))

        for likely in ("Ad-1", "Ad-2", "Ad-3"):
            engine = ScriptedEngine(["Try @Swift Shoes@[Ad-1] today."])
            bids = [b._replace(pctr=0.5 if b.ad_id == likely else 0.01) for b in ask().bids]
            _, answer = await run(ask(bids=tuple(bids)), scripted_services(store, engine))
            assert listed(engine)[0] == likely
            assert [part.charge.price_micros for part in answer.ads] == [1_250_000]

    async def test_where_not_all_fit_those_that_promise_least_go(self, store: Store) -> None:
        engine = ScriptedEngine(["Fine."])
        having = scripted_services(store, engine)
        bids = [b._replace(pctr=0.01 if b.ad_id == "Ad-3" else 0.5) for b in ask().bids]
        await run(ask(max_tokens=10), having)
        engine.max_model_len = engine.count_tokens(engine.generations[0].prompt)  # type: ignore[misc]
        _, answer = await run(ask(bids=tuple(bids), max_tokens=10), having)
        dropped = {e.ad_id for e in answer.offers.excluded if e.reason == "no_room"}
        assert "Ad-3" in dropped
        assert "Ad-2" not in dropped

    def test_the_order_changes_with_the_day(self, store: Store) -> None:
        having = scripted_services(store, ScriptedEngine([]))
        assert having.order_salt(date(2026, 1, 1)) != having.order_salt(date(2026, 1, 2))

    async def test_the_store_away_means_no_ads_and_an_answer(self, store: Store) -> None:
        engine = ScriptedEngine(["Fine."])
        having = scripted_services(store, engine)
        async with open_store(
            StoreSettings(url="redis://127.0.0.1:1", timeout_ms=50), Path(), lambda line: None
        ) as away:
            having = replace(having, catalog=Catalog(away, "test"))
            _, answer = await run(ask(), having)
        assert answer.offers.is_unavailable
        assert answer.text == "Fine."
        assert answer.ads == ()
