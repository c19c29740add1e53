"""The measures on outcomes whose figures are known."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from models.contract import order
from models.contract.order import SHARPNESS
from models.contract.prompt import Layout
from models.evaluation.config import Study
from models.evaluation.measures.bootstrap import Estimate, mean, ratio, relative
from models.evaluation.measures.continuous import Continuity, jumps
from models.evaluation.measures.efficiency import comparison, efficiency
from models.evaluation.measures.incentives import incentives
from models.evaluation.measures.monotone import BidResponse, monotonicity
from models.evaluation.measures.optimum import Optimum, optimum
from models.evaluation.measures.order import OrderEffect, order_freeness
from models.evaluation.measures.sweeps import Sweeps
from models.evaluation.measures.targeting import targeting
from models.evaluation.record import Bidder, Record, Showing


def showing(ad_id: str = "Ad-1", bid: int = 20, probability: float = 0.5) -> Showing:
    return Showing(ad_id, bid, probability, False, "click", Decimal(bid))


def a_record(number: int = 0, *showings: Showing, **changes: object) -> Record:
    one = Record(
        key=f"efficiency/m/{number}",
        study=Study.EFFICIENCY,
        mechanism="m",
        auction_id=f"a{number}",
        row=f"a{number}",
        query_id=f"q{number}",
        category="tents",
        bidders=(
            Bidder("Ad-1", "tents", 20, 0.5),
            Bidder("Ad-2", "tents", 60, 0.4),
            Bidder("Ad-3", "tea", 90),
        ),
        sweep=None,
        answer="Text.",
        plain="Text.",
        showings=showings,
        faults=(),
        reward=0.0,
        similarity=0.8,
        model_calls=1,
        prompt_tokens=100,
        cached_tokens=0,
        completion_tokens=50,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


class TestBootstrap:
    def test_an_interval_covers_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(1)
        covered = 0
        for number in range(300):
            found = mean(rng.exponential(size=60), seed=number)
            covered += found.low <= 1 <= found.high
        assert 0.90 <= covered / 300 <= 0.98

    def test_it_covers_as_often_over_clusters(self) -> None:
        rng = np.random.default_rng(1)
        clusters = np.repeat(np.arange(50), 4)
        covered = 0
        for number in range(300):
            values = rng.normal(size=50)[clusters] + rng.normal(size=200) / 2
            found = mean(values, number, clusters.tolist())
            covered += found.low <= 0 <= found.high
        assert 0.90 <= covered / 300 <= 0.98

    def test_clusters_of_one_value_each_are_as_good_as_none(self) -> None:
        values, others = np.random.default_rng(1).random((2, 30)) + 1
        clusters = [f"q{30 - number}" for number in range(30)]
        assert mean(values, 1, clusters) == mean(values, 1)
        assert relative(values, others, 1, clusters) == relative(values, others, 1)

    def test_a_seed_gives_the_same_interval(self) -> None:
        values = np.arange(10.0)
        assert mean(values, seed=3) == mean(values, seed=3)
        assert mean(values, seed=3) != mean(values, seed=4)

    def test_pairing_takes_out_what_both_sides_share(self) -> None:
        rng = np.random.default_rng(1)
        shared = rng.exponential(size=50) * 100
        found = ratio(2 * shared + rng.normal(size=50), shared, seed=1)
        assert found.high - found.low < 0.05

    def test_a_ratio_to_what_may_be_nothing_is_not_told(self) -> None:
        rare = np.array([0.0] * 15 + [0.01])
        assert np.isnan(relative(np.ones(16), rare, seed=1).value)

    def test_one_unit_has_no_interval(self) -> None:
        found = mean(np.array([4.0]), seed=1)
        assert found.value == 4
        assert np.isnan(found.low)


class TestEfficiency:
    def test_figures_per_answer(self) -> None:
        records = [
            a_record(0, showing(), showing("Ad-2", 60, 0.25), reward=5.0, faults=("duplicate",)),
            a_record(1, reward=-1.0),
        ]
        found = efficiency(records, seed=1)
        assert found.revenue.value == pytest.approx((20 * 0.5 + 60 * 0.25) / 2)
        assert found.reward.value == 2
        assert found.ads.value == 1
        assert found.ctr.value == pytest.approx(0.375)
        assert found.faults.value == 0.5
        assert found.revenue_per_1000_tokens.value == pytest.approx(1000 * 12.5 / 50)

    @pytest.mark.parametrize(
        ("plain", "is_made_up"),
        [
            ("For tea, you could try @Leaf and Cup.", True),
            ("@Leaf has it.", True),
            ("Ask (@leaf) for it.", True),
            ("Write to tea@leaf.example.", False),
            ("Ten cups @ 2 each.", False),
            ("For tea, try Leaf.", False),
        ],
    )
    def test_names_after_an_at_are_made_up(self, plain: str, is_made_up: bool) -> None:
        found = efficiency([a_record(0, plain=plain), a_record(1)], seed=1)
        assert found.made_up.value == is_made_up / 2

    def test_compares_on_the_auctions_that_both_answered(self) -> None:
        ours = [a_record(number, showing(bid=40)) for number in range(4)]
        theirs = [a_record(number, showing(bid=20)) for number in range(1, 9)]
        found = comparison(ours, theirs, seed=1)
        assert found.revenue_ratio.value == found.revenue_ratio.low == pytest.approx(2)
        assert found.revenue_difference.value == pytest.approx(10)


class TestRepeats:
    """Four answers to each query, all alike, tell no more than one."""

    ONCE = tuple(
        a_record(
            number,
            *([showing(probability=(number + 1) / 9)] if number % 3 else []),
            reward=float(number),
            similarity=number / 8,
            completion_tokens=40 + number,
            category="tents" if number % 2 else None,
        )
        for number in range(8)
    )
    AGAIN = tuple(
        replace(one, auction_id=f"{one.auction_id}-{turn}") for one in ONCE for turn in range(4)
    )

    def test_figures_are_over_queries(self) -> None:
        alike(efficiency(self.AGAIN, seed=1), efficiency(self.ONCE, seed=1))
        assert efficiency(self.AGAIN, seed=1).queries == 8
        alike(targeting(self.AGAIN, seed=1), targeting(self.ONCE, seed=1))

    def test_comparisons_are_over_queries(self) -> None:
        def better(records: tuple[Record, ...]) -> list[Record]:
            return [replace(one, reward=one.reward**2, similarity=0.5) for one in records]

        once = comparison(better(self.ONCE), self.ONCE, seed=1)
        alike(comparison(better(self.AGAIN), self.AGAIN, seed=1), once)

    def test_the_optimum_is_over_queries(self) -> None:
        def best(records: tuple[Record, ...]) -> Optimum:
            draws = [replace(one, draw_rewards=(one.reward, 9.0)) for one in records]
            return optimum(draws, {"m": records}, beta=10, seed=1)

        alike(best(self.AGAIN), best(self.ONCE))
        alike(best(self.AGAIN).gaps["m"], best(self.ONCE).gaps["m"])


def alike(one: object, other: object) -> None:
    """All figures of both are the same, but for the last digits."""
    for name in one.__dataclass_fields__:  # type: ignore[attr-defined]
        first, second = getattr(one, name), getattr(other, name)
        if isinstance(first, Estimate):
            alike(first, second)
        elif isinstance(first, float):
            assert first == pytest.approx(second), name


class TestTargeting:
    def test_shares_are_over_the_auctions_of_the_kind(self) -> None:
        records = [
            a_record(0, showing("Ad-1")),  # fits, but 20 * 0.5 < 60 * 0.4
            a_record(1, showing("Ad-2", 60)),
            a_record(2, showing("Ad-3", 90)),
            a_record(3, category=None),
            a_record(4, showing("Ad-3", 90), category=None),
        ]
        found = targeting(records, seed=1)
        assert found.fitting_shown.value == pytest.approx(2 / 3)
        assert found.better_shown.value == pytest.approx(1 / 3)
        assert found.none_shown.value == pytest.approx(1 / 2)


class TestMonotone:
    def test_noise_around_a_flat_curve_falls_no_more_often_than_it_may(self) -> None:
        bids = np.arange(11.0)
        rng = np.random.default_rng(5)
        verdicts = [
            monotonicity(
                bids, (rng.random((40, 11)) < 0.3).astype(float), np.arange(40), seed=number
            ).verdict
            for number in range(100)
        ]
        assert verdicts.count(BidResponse.FALLS) <= 10
        assert verdicts.count(BidResponse.FLAT) >= 85

    def test_the_rank_correlation_is_that_of_a_perfect_order(self) -> None:
        bids = np.arange(11.0)
        found = monotonicity(bids, np.tile(bids / 10, (5, 1)), np.arange(5), seed=1)
        assert found.spearman.value == pytest.approx(1)
        assert found.pooled_spearman.value == pytest.approx(1)
        assert found.decrease == 0

    def test_answers_that_are_shown_or_not_still_have_a_mean_that_rises(self) -> None:
        bids = np.arange(11.0)
        shown = np.random.default_rng(5).random((2_000, 11)) < 0.2 + bids / 20
        found = monotonicity(bids, shown.astype(float), np.arange(2_000) // 20, seed=1)
        assert found.spearman.value < 0.7
        assert found.pooled_spearman.low > 0.95

    def test_a_mean_without_any_order_is_told_from_a_rising_one(self) -> None:
        bids = np.arange(11.0)
        shown = np.random.default_rng(5).random((200, 11)) < 0.5
        found = monotonicity(bids, shown.astype(float), np.arange(200), seed=1).pooled_spearman
        assert found.low < 0 < found.high
        flat = monotonicity(bids, np.zeros((5, 11)), np.arange(5), seed=1)
        assert flat.pooled_spearman.value == 0

    def test_repeats_of_a_query_are_no_further_queries(self) -> None:
        bids, rng = np.arange(11.0), np.random.default_rng(7)
        queries = np.repeat(np.arange(12), 4)
        likely = rng.random(12)[:, None] * bids / 10  # queries differ, their repeats hardly
        rows = (rng.random((48, 11)) * 0.1 < np.repeat(likely, 4, axis=0) - 0.3).astype(float)
        apart = monotonicity(bids, rows, np.arange(48), seed=1).gain
        together = monotonicity(bids, rows, queries, seed=1).gain

        assert together.value == pytest.approx(apart.value)
        assert together.high - together.low > 1.5 * (apart.high - apart.low)

    def test_one_ad_that_falls_among_many_that_rise_is_found(self) -> None:
        bids, queries = np.arange(11.0), np.repeat(np.arange(12), 3)
        rows = np.tile(bids >= 5, (36, 1)).astype(float)
        assert monotonicity(bids, rows, queries, seed=1).falling == 0
        rows[:3] = rows[:3, ::-1]
        found = monotonicity(bids, rows, queries, seed=1)

        assert (found.falling, found.ads, found.verdict) == (1, 12, BidResponse.RISES)

    def test_one_ad_that_falls_is_found_among_any_number(self) -> None:
        bids, queries = np.arange(11.0), np.repeat(np.arange(120), 4)
        rows = np.tile(bids / 10, (480, 1))
        rows[:4] = rows[:4, ::-1]

        assert monotonicity(bids, rows, queries, seed=1).falling == 1

    def test_ads_that_only_noise_moves_do_not_fall(self) -> None:
        bids, rng = np.arange(11.0), np.random.default_rng(9)
        queries = np.repeat(np.arange(24), 3)
        found = [
            monotonicity(bids, (rng.random((72, 11)) < 0.4).astype(float), queries, seed=n).falling
            for n in range(20)
        ]

        assert sum(count > 0 for count in found) <= 4


class TestContinuous:
    def test_noise_around_a_steady_curve_jumps_no_more_often_than_it_may(self) -> None:
        bids = np.arange(1.0, 101.0)
        rng = np.random.default_rng(5)
        verdicts = [
            jumps(bids, (rng.random((30, 100)) < bids / 120).astype(float), seed=number).verdict
            for number in range(60)
        ]
        assert verdicts.count(Continuity.STEP) <= 7

    def test_a_jump_is_found_where_it_is(self) -> None:
        bids = np.arange(1.0, 101.0)
        rng = np.random.default_rng(5)
        found = jumps(bids, (rng.random((40, 100)) < np.where(bids < 30, 0.2, 0.8)) * 1.0, seed=1)
        assert found.jump_bid == pytest.approx(29.5, abs=1)
        assert found.jump == pytest.approx(0.6, abs=0.2)

    def test_where_nothing_moves_no_step_can_be_ruled_out(self) -> None:
        bids = np.arange(1.0, 101.0)
        luck = np.random.default_rng(5).random((30, 1)) < 0.5
        found = jumps(bids, np.tile(luck, (1, 100)) * 1.0, seed=1)
        assert found.verdict is Continuity.FLAT

    def test_one_seed_decides_nothing(self) -> None:
        bids = np.arange(1.0, 101.0)
        found = jumps(bids, (bids > 40)[None] * 1.0, seed=1)
        assert found.verdict is Continuity.UNDECIDED

    def test_an_auction_that_draws_its_winner_is_continuous_over_seeds(self) -> None:
        bids = np.arange(1.0, 101.0)
        luck = np.random.default_rng(5).random((100, 1))
        found = jumps(bids, (luck < bids / (bids + 50)) * 1.0, seed=1)
        assert found.verdict is Continuity.CONTINUOUS

    @pytest.mark.parametrize(
        ("sharpness", "steps"), [(SHARPNESS, (0, 2)), (2 * SHARPNESS, (7, 10))]
    )
    def test_candidates_are_listed_as_sharply_as_the_published_protocol_allows(
        self, sharpness: float, steps: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten times 200 answers at each bid from 1 to 100, against one of 50 (LLM-Auction, 5)."""
        monkeypatch.setattr(order, "SHARPNESS", sharpness)
        bids = np.arange(1, 101)

        def is_first(bid: int, number: int) -> bool:
            ads = ("Ad-1", "Ad-2")
            return order.listing_order(Layout.INLINE, ads, (bid, 50), b"%d" % number)[0] == 0

        verdicts = [
            jumps(
                bids * 1.0, np.array([[is_first(b, n) for b in bids] for n in some]) * 1.0, 1
            ).verdict
            for some in np.arange(2_000).reshape(10, 200).tolist()
        ]
        assert steps[0] <= verdicts.count(Continuity.STEP) <= steps[1]

    @pytest.mark.parametrize("step", [13.5, 38.5, 83.5])
    def test_a_step_is_found_on_a_coarse_grid_too(self, step: float) -> None:
        bids = np.arange(1.0, 101.0, 5.0)
        found = jumps(bids, np.tile(bids > step, (5, 1)) * 1.0, seed=1)
        assert found.verdict is Continuity.STEP
        assert found.jump == pytest.approx(1)
        assert found.jump_bid == step

    def test_too_few_bids_are_refused(self) -> None:
        with pytest.raises(ValueError, match="20 bids"):
            jumps(np.arange(11.0), np.zeros((5, 11)), seed=1)


class TestOrder:
    def test_ads_that_come_together_look_biased_no_more_often_than_they_may(self) -> None:
        """Every answer shows four neighbours of eight, wherever they stand."""
        bidders = tuple(Bidder(f"Ad-{number}", "tents", 20) for number in range(8))
        rng = np.random.default_rng(1)

        def answer(auction: int, down: int) -> Record:
            first = rng.integers(8)
            return a_record(
                auction,
                *(showing(f"Ad-{(first + number) % 8}") for number in range(4)),
                key=f"order/m/a{auction}/down-{down}",
                study=Study.ORDER,
                bidders=bidders[-down:] + bidders[:-down],
            )

        verdicts = []
        for seed in range(40):
            records = [answer(auction, down) for auction in range(20) for down in (0, 2, 4, 6)]
            found = order_freeness(records, seed)
            verdicts.append(found.verdict if found else None)
        assert verdicts.count(OrderEffect.BIASED) <= 4


class TestIncentives:
    def test_nothing_seems_to_beat_the_truth_where_it_is_the_best(self) -> None:
        """At the second price. A bid judged by the luck it was chosen by would seem to."""
        bids = np.array([1, *range(10, 101, 10)], dtype=np.float64)
        found = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            rivals = rng.uniform(1, 100, 30).repeat(3)
            shown = (bids > rivals[:, None]).astype(np.float64)
            clicks = 0.5 * shown
            sweep = Sweeps(bids, shown, clicks, clicks * rivals[:, None], np.arange(30).repeat(3))
            found.append(incentives(sweep, seed).best_response_gain)
        assert sum(gain.low > 0 for gain in found) <= 1
        assert all(gain.value < 0.05 for gain in found)


class TestOptimum:
    def test_weights_draws_by_their_rewards(self) -> None:
        draws = [
            a_record(number, study=Study.OPTIMUM, draw_rewards=(0.0, 10 * np.log(3)))
            for number in range(3)
        ]
        others = {"m": [a_record(number, reward=1.0) for number in range(3)]}
        found = optimum(draws, others, beta=10, seed=1)
        best = 0.75 * 10 * np.log(3)
        assert found.reward.value == pytest.approx(best)
        assert found.objective.value == pytest.approx(10 * np.log(2))
        assert found.gaps["m"].value == pytest.approx(best - 1)
        assert found.effective_draws == pytest.approx(1 / (0.75**2 + 0.25**2))
