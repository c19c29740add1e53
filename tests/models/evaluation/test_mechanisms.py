"""Each mechanism's calls, choice and prices, with an engine that writes what it is told."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from market import BagOfWords, Readers, an_auction
from typist import Typist, whole

from models.contract.prompt import Layout
from models.engine.interface import Generation, Sampling
from models.evaluation.mechanism import Outcome
from models.evaluation.mechanisms.best_of import BestOf
from models.evaluation.mechanisms.catalogue import MECHANISMS, OF_ALIGNED, Parts
from models.evaluation.mechanisms.first_fitting import FirstFitting
from models.evaluation.mechanisms.generate_insert_rewrite import GenerateInsertRewrite
from models.evaluation.mechanisms.mosaic import Mosaic, payment_share
from models.evaluation.mechanisms.position_auction import PositionAuction
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.mechanisms.segment_auction import SegmentAuction, draw_winners
from models.evaluation.mechanisms.single_pass import SinglePass
from models.evaluation.policy import HIDDEN_BID, Policy
from models.evaluation.relevance import EmbeddingRelevance
from models.simulation.completions import Completions, CompletionStore
from models.simulation.objective import Objective

BIDS = (40, 90, 10, 20, 30, 50, 60, 70)
TENTS, SHOES = "@Best tents@[Ad-0]", "@Best shoes@[Ad-1]"
Says = Callable[[Generation], str]


def policy(says: Says, is_constrained: bool = True) -> tuple[Policy, Typist]:
    engine = Typist(says)
    completions = Completions(engine, CompletionStore(None))
    return Policy(completions, Layout.INLINE, Sampling(), 3, is_constrained), engine


def sampler(says: Says, count: int = 6) -> tuple[Sampler, Typist]:
    drawn_from, engine = policy(says)
    return Sampler(drawn_from, Readers(), Objective(), count), engine


def by_seed(*texts: str) -> Says:
    """Another text for another seed, each about as often."""
    return lambda generation: texts[(generation.sampling.seed or 0) % len(texts)]


def shown(outcome: Outcome) -> list[str]:
    return [str(segment.ad_id) for segment in outcome.reading.insertions]


def test_prompts_list_candidates_by_what_a_caller_knows_of_clicks() -> None:
    one, _ = policy(lambda generation: "Plain.")
    auction = replace(an_auction(), bids=(50,) * len(BIDS))

    def first(likely: str) -> str:
        knowing = replace(
            one, pctr=lambda asked: [0.5 if a.ad_id == likely else 0.01 for a in asked.ads]
        )
        text = "".join(piece.text for piece in knowing.prompt(auction).messages[0].pieces)
        return min(auction.ads, key=lambda ad: text.index(ad.title)).ad_id

    assert [first(ad.ad_id) for ad in auction.ads] == [ad.ad_id for ad in auction.ads]


class TestEveryMechanism:
    @pytest.mark.parametrize("name", list(MECHANISMS))
    async def test_prices_each_ad_at_no_more_than_its_bid_and_repeats_itself(
        self, name: str
    ) -> None:
        says = by_seed("Plain.", f"Use {TENTS} here.", f"Use {SHOES} and {TENTS} here.")
        one, _ = policy(says)
        parts = Parts(one, Sampler(one, Readers(), Objective(), 5), relevance(), aligned=one)
        mechanism = MECHANISMS[name](parts)
        auction = an_auction(bids=BIDS)
        outcome = await mechanism.answer(auction)
        bids = dict(zip([ad.ad_id for ad in auction.ads], auction.bids, strict=True))
        assert mechanism.name == name
        assert [price.ad_id for price in outcome.prices] == shown(outcome)
        assert all(0 <= price.amount <= bids[price.ad_id] for price in outcome.prices)
        assert outcome.model_calls >= 1
        assert await mechanism.answer(auction) == outcome

    @pytest.mark.parametrize("name", sorted(OF_ALIGNED))
    def test_the_aligned_ones_need_their_weights(self, name: str) -> None:
        one, _ = policy(by_seed("Plain."))
        parts = Parts(one, Sampler(one, Readers(), Objective()), relevance())
        with pytest.raises(ValueError, match=f"{name} needs --aligned"):
            MECHANISMS[name](parts)


class TestNoAds:
    async def test_the_aligned_model_is_asked_without_candidates(self) -> None:
        one, _ = policy(by_seed("Plain."))
        aligned, engine = policy(lambda _: "Try @Leaf.")
        parts = Parts(one, Sampler(one, Readers(), Objective()), relevance(), aligned)
        outcome = await MECHANISMS["aligned-no-ads"](parts).answer(an_auction(bids=BIDS))
        assert outcome.reading.answer == "Try @Leaf."
        assert "Ad-0" not in whole(engine.asked[0].prompt)


class TestSinglePass:
    async def test_one_call_and_the_bid_as_price(self) -> None:
        one, engine = policy(lambda _: f"Take {TENTS} along.")
        outcome = await SinglePass("pretrained", one).answer(an_auction(bids=BIDS))
        assert outcome.model_calls == len(engine.asked) == 1
        assert shown(outcome) == ["Ad-0"]
        assert outcome.prices[0].amount == 40
        assert engine.asked[0].grammar is not None
        assert TENTS in engine.asked[0].insertions

    async def test_unconstrained_decoding_has_its_faults_counted(self) -> None:
        one, engine = policy(lambda _: "Take @Best tent@[Ad-0] along.", is_constrained=False)
        outcome = await SinglePass("pretrained", one).answer(an_auction(bids=BIDS))
        assert engine.asked[0].grammar is None
        assert not engine.asked[0].insertions
        assert [fault.kind for fault in outcome.reading.faults] == ["altered_title"]
        assert not outcome.prices


class TestMosaic:
    async def test_draws_see_no_bids(self) -> None:
        chosen, engine = sampler(by_seed("Plain.", f"Use {TENTS}."))
        await Mosaic(chosen).answer(an_auction(bids=BIDS))
        before = len(engine.asked)
        await Mosaic(chosen).answer(replace(an_auction(bids=BIDS), bids=(1,) * 8))
        assert f'"bid":{HIDDEN_BID}' in whole(engine.asked[0].prompt)
        assert before == len(engine.asked) == 6

    async def test_a_low_temperature_takes_the_best_draw(self) -> None:
        chosen, _ = sampler(by_seed("Plain.", f"Use {TENTS}."))
        outcome = await Mosaic(chosen, tau=0.01).answer(an_auction(bids=BIDS))
        assert shown(outcome) == ["Ad-0"]  # 40 * 0.5 - 10 over 0
        assert outcome.model_calls == 6

    def test_nobody_pays_where_the_draws_are_all_the_same_to_them(self) -> None:
        assert payment_share(np.array([5.0, 1.0]), np.array([3.0, 3.0]), 10) == pytest.approx(0)

    def test_who_decides_pays_what_the_others_lose(self) -> None:
        # With tau near 0: the second draw is worth 6 to the others, and is displaced by a bid of 9.
        share = payment_share(np.array([9.0, 6.0]), np.array([9.0, 0.0]), 0.001)
        assert share * 9 == pytest.approx(6, abs=0.01)

    @pytest.mark.parametrize("value", [1.0, 4.0, 9.0])
    def test_the_truth_is_the_best_report(self, value: float) -> None:
        others = np.array([0.0, 3.0, 5.0])
        clicked = np.array([0.5, 0.2, 0.0])

        def utility(report: float) -> float:
            rewards = others + report * clicked
            chances = np.exp(rewards / 2) / np.exp(rewards / 2).sum()
            gross = float(chances @ clicked)
            share = payment_share(rewards, report * clicked, 2)
            return value * gross - share * report * gross

        best = max((utility(report), report) for report in np.arange(0.5, 15, 0.5))
        assert best[1] == pytest.approx(value)


class TestBestOf:
    async def test_takes_the_highest_reward_of_all_draws(self) -> None:
        chosen, _ = sampler(by_seed("Plain.", f"Use {TENTS}.", f"Use {SHOES}."), count=12)
        outcome = await BestOf(chosen).answer(an_auction(bids=BIDS))
        assert shown(outcome) == ["Ad-0"]
        assert outcome.prices[0].amount == 40
        assert outcome.model_calls == 12


class TestGenerateInsertRewrite:
    async def test_three_calls_each_on_the_text_before(self) -> None:
        said = iter(["Raw text.", f"Try {TENTS}.", f"Fine text with {TENTS} in."])
        one, engine = policy(lambda _: next(said))
        outcome = await GenerateInsertRewrite(one, relevance()).answer(an_auction(bids=BIDS))
        assert outcome.model_calls == 3
        assert outcome.reading.answer == f"Fine text with {TENTS} in."
        assert [price.amount for price in outcome.prices] == [40]
        prompts = [whole(generation.prompt) for generation in engine.asked]
        assert "Ad-0" not in prompts[0]
        assert "Raw text." in prompts[1]
        assert "Raw text. Try Best tents." in prompts[2]
        assert "Ad-1" not in prompts[2]

    async def test_the_ad_stands_after_the_sentence_closest_to_it(self) -> None:
        said = iter(["Well. About tents. Bye.", f"Try {TENTS}.", "It was lost."])
        one, _ = policy(lambda _: next(said))
        outcome = await GenerateInsertRewrite(one, relevance()).answer(an_auction(bids=BIDS))
        assert outcome.reading.answer == f"Well. About tents. Try {TENTS}. Bye."


class TestSegmentAuction:
    async def test_writes_one_drawn_ad_a_segment(self) -> None:
        one, engine = policy(lambda generation: f"Well, {only_ad(generation)} it is.")
        outcome = await SegmentAuction(one, relevance()).answer(an_auction(bids=BIDS))
        assert outcome.model_calls == 2
        assert len(shown(outcome)) == len(set(shown(outcome))) == 2
        assert all(price.amount < 100 for price in outcome.prices)
        assert "@" in whole(engine.asked[1].prompt)
        assert "opening" in str(engine.asked[0].grammar)

    def test_wins_are_proportional_to_bid_times_relevance(self) -> None:
        weights = {f"Ad-{index}": 1.0 + index for index in range(8)}
        wins = dict.fromkeys(weights, 0)
        auction = an_auction(bids=BIDS)
        for seed in range(4000):
            (winner,) = draw_winners(replace(auction, seed=seed), weights, 1)
            wins[winner] += 1
        total = sum(bid * (1 + index) for index, bid in enumerate(BIDS))
        for index, bid in enumerate(BIDS):
            share = bid * (1 + index) / total
            noise = math.sqrt(share * (1 - share) / 4000)
            assert wins[f"Ad-{index}"] / 4000 == pytest.approx(share, abs=4 * noise)

    def test_the_price_is_the_lowest_bid_that_still_wins(self) -> None:
        weights = dict.fromkeys([f"Ad-{index}" for index in range(8)], 1.0)
        auction = an_auction(bids=(1000,) * 8)
        ((winner, price),) = draw_winners(auction, weights, 1).items()
        place = int(winner.removeprefix("Ad-"))

        def still_wins(bid: int) -> bool:
            bids = tuple(bid if index == place else 1000 for index in range(8))
            return winner in draw_winners(replace(auction, bids=bids), weights, 1)

        assert still_wins(math.ceil(price))
        assert not still_wins(math.floor(price))


class TestPositionAuction:
    async def test_fills_slots_by_bid_times_quality_at_the_next_score(self) -> None:
        class Equal:
            def weights(self, *_: object) -> list[float]:
                return [1.0] * 8

            def closeness(self, *_: object) -> list[float]:
                return []

        one, engine = policy(lambda _: "The plain answer.")
        outcome = await PositionAuction(one, Equal()).answer(an_auction(bids=BIDS))
        assert shown(outcome) == ["Ad-1", "Ad-7"]
        assert [price.amount for price in outcome.prices] == [70, 60]
        assert outcome.reading.answer.startswith(
            "The plain answer.\n\nSponsored: @Best shoes@[Ad-1]"
        )
        assert "Ad-1" not in whole(engine.asked[0].prompt)


class TestFirstFitting:
    async def test_shows_of_what_serves_the_query_what_the_prompt_lists_first(self) -> None:
        one, engine = policy(lambda _: "It depends. Look around.")
        two_fit = an_auction(bids=BIDS)
        shoes = replace(two_fit.ads[1], category="tents")
        two_fit = replace(two_fit, ads=(two_fit.ads[0], shoes, *two_fit.ads[2:]))
        by_bid = await FirstFitting(one).answer(two_fit)
        assert shown(by_bid) == ["Ad-1"]
        assert by_bid.prices[0].amount == 90
        assert by_bid.reading.answer == (
            f"It depends. For this, {SHOES} is a good fit: All about shoes. Look around."
        )
        assert "Ad-1" not in whole(engine.asked[0].prompt)

        knowing = replace(
            one, pctr=lambda asked: [0.01 if a.ad_id == "Ad-1" else 0.5 for a in asked.ads]
        )
        assert shown(await FirstFitting(knowing).answer(two_fit)) == ["Ad-0"]

    @pytest.mark.parametrize("category", ["carpets", None])
    async def test_shows_nothing_where_nothing_is_known_to_fit(self, category: str | None) -> None:
        one, _ = policy(lambda _: "It depends. Look around.")
        outcome = await FirstFitting(one).answer(an_auction(bids=BIDS, category=category))
        assert outcome.reading.answer == "It depends. Look around."
        assert not outcome.prices


def relevance() -> EmbeddingRelevance:
    return EmbeddingRelevance(BagOfWords())


def only_ad(generation: Generation) -> str:
    lines = whole(generation.prompt).splitlines()
    ad = json.loads(next(line for line in lines if line.startswith("{")))
    return f"@{ad['title']}@[{ad['id']}]"
