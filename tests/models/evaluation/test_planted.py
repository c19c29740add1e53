"""The measures can tell: planted mechanisms get the verdicts that they deserve, without a model.

Every one goes the whole way: plan, answers, records on disk, measures.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from market import BagOfWords, Planted, Readers, an_auction
from typist import Typist

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation.config import RunConfig, Sizes, Study
from models.evaluation.measures.continuous import Continuity, jumps
from models.evaluation.measures.incentives import incentives
from models.evaluation.measures.monotone import BidResponse, monotonicity
from models.evaluation.measures.order import OrderEffect, order_freeness
from models.evaluation.measures.sweeps import Sweeps, sweeps
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.plan import auctions_needed, plan
from models.evaluation.policy import Policy
from models.evaluation.record import Record, read_records
from models.evaluation.run import OUTCOMES, Bench, run
from models.simulation.completions import Completions, CompletionStore
from models.simulation.objective import Objective

SIZES = Sizes(
    auctions=0,
    sweep_queries=20,
    sweep_repeats=4,
    curve_repeats=60,
    curve_step=1,
    order_auctions=120,
    order_rotations=4,
)
Exposure = Callable[[int, int], float]
PLANTED: dict[str, Exposure] = {
    "perfect": lambda bid, _: bid / 110,
    "bid-blind": lambda bid, _: 0.4,
    "stepwise": lambda bid, _: 0.15 if bid < 50 else 0.75,
    "non-monotone": lambda bid, _: math.sin(bid / 100 * math.pi) * 0.8,
    "order-biased": lambda bid, place: bid / 110 * (1.0 if place < 2 else 0.6),
}


async def measured(
    name: str, directory: Path, price: Callable[[int], Decimal] = Decimal
) -> "Found":
    config = RunConfig((name,), sizes=SIZES)
    policy = Policy(
        Completions(Typist(lambda _: "Plain."), CompletionStore(None)),
        Layout.INLINE,
        Sampling(),
        3,
    )
    bench = Bench(
        {name: Planted(name, PLANTED[name], price)},
        policy,
        Sampler(policy, Readers(), Objective()),
        Readers(),
        Objective(),
        BagOfWords(),
    )
    tasks = plan(config, [an_auction(number) for number in range(auctions_needed(SIZES))])
    await run(tasks, bench, directory, lambda done: None)
    records, _ = read_records(directory / OUTCOMES)
    return Found(records)


class Found:
    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def of(self, study: Study) -> list[Record]:
        return [one for one in self.records if one.study is study]

    @property
    def sweep(self) -> Sweeps:
        return sweeps(self.of(Study.BID_RESPONSE))

    @property
    def response(self) -> BidResponse:
        return monotonicity(
            self.sweep.bids, self.sweep.exposures, self.sweep.queries, seed=1
        ).verdict

    @property
    def continuity(self) -> Continuity:
        sweep = sweeps(self.of(Study.CONTINUITY))
        return jumps(sweep.bids, sweep.exposures, seed=1).verdict

    @property
    def order(self) -> OrderEffect:
        found = order_freeness(self.of(Study.ORDER), seed=1)
        assert found is not None
        return found.verdict


@pytest.mark.parametrize(
    ("name", "response", "continuity", "order"),
    [
        ("perfect", BidResponse.RISES, Continuity.CONTINUOUS, OrderEffect.NONE),
        ("bid-blind", BidResponse.FLAT, Continuity.CONTINUOUS, OrderEffect.NONE),
        ("stepwise", BidResponse.RISES, Continuity.STEP, OrderEffect.NONE),
        ("non-monotone", BidResponse.FALLS, Continuity.CONTINUOUS, OrderEffect.NONE),
        ("order-biased", BidResponse.RISES, Continuity.CONTINUOUS, OrderEffect.BIASED),
    ],
)
async def test_a_planted_mechanism_gets_the_verdicts_it_deserves(
    name: str,
    response: BidResponse,
    continuity: Continuity,
    order: OrderEffect,
    tmp_path: Path,
) -> None:
    found = await measured(name, tmp_path)
    assert (found.response, found.continuity, found.order) == (response, continuity, order)


async def test_shading_pays_at_first_price_and_nothing_pays_at_the_truthful_price(
    tmp_path: Path,
) -> None:
    first = incentives((await measured("perfect", tmp_path / "first")).sweep, seed=1)
    # Exposure is bid / 110, so the truthful price (Myerson's) is half of the bid.
    halved = await measured("perfect", tmp_path / "half", lambda bid: Decimal(bid) / 2)
    truthful = incentives(halved.sweep, seed=1)
    assert first.best_response_gain.low > 0
    # v = 100 gains most by bidding v / 2: (100 - 50) * 50 / 110 / 2 less nothing.
    assert first.gains[-1] == pytest.approx(50 * 50 / 110 / 2, abs=3)
    assert truthful.best_response_gain.low <= 0
    assert truthful.best_response_gain.value < first.best_response_gain.value / 4
    assert first.is_individually_rational
    assert truthful.is_individually_rational


async def test_paying_over_the_bid_is_found(tmp_path: Path) -> None:
    dear = await measured("perfect", tmp_path, lambda bid: Decimal(bid) * 2)
    found = incentives(dear.sweep, seed=1)
    assert not found.is_individually_rational
    assert found.lowest_utility < 0


async def test_value_maximisers_regret_the_truth_only_where_bids_do_not_rise(
    tmp_path: Path,
) -> None:
    rising = incentives((await measured("perfect", tmp_path / "a")).sweep, seed=1)
    falling = incentives((await measured("non-monotone", tmp_path / "b")).sweep, seed=1)
    assert rising.value_regret.value < 0.5
    assert falling.value_regret.low > 1
