"""What advertisers gain by not bidding their value, from the measured response curves.

An advertiser of value v per click who bids b is clicked x(b) times per answer and pays t(b). A
utility maximiser wants v x(b) - t(b); a value maximiser v x(b) with t(b) at most v x(b) (a return
target of 1). Bids are chosen on one half of the queries and judged on the other: the best of
noisy bids would otherwise always look better than it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures.bootstrap import Array, Estimate
from models.evaluation.measures.sweeps import Sweeps, Units, independent

_GRID: Array = np.arange(1, 101).astype(np.float64)
Rows = NDArray[np.int64]
_RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Incentives:
    """Means over values 1..100, in units of currency per answer.

    best_response_gain: of utility maximisers. value_regret: of truthful value maximisers.
    values, gains: shape (values,), the gain by value. lowest_utility: of a truthful bidder,
    over the bids that were measured. is_individually_rational: nobody who bids the truth expects
    to lose.
    """

    best_response_gain: Estimate
    value_regret: Estimate
    values: Array
    gains: Array
    lowest_utility: float
    is_individually_rational: bool


def incentives(sweep: Sweeps, seed: int) -> Incentives:
    """sweep: at least two rows, of bids that span 1..100 (between them curves are straight)."""
    halves = _halves(independent(sweep.queries))
    gains, regrets = _cross_fitted(sweep, halves, None)
    spread = []
    for number in range(_RESAMPLES):
        resampled = _cross_fitted(sweep, halves, (seed, number))
        spread.append([column.mean() for column in resampled])
    low, high = np.percentile(np.array(spread), (2.5, 97.5), axis=0)
    truthful = sweep.bids * sweep.clicks.mean(axis=0) - sweep.payments.mean(axis=0)
    return Incentives(
        best_response_gain=Estimate(float(gains.mean()), float(low[0]), float(high[0])),
        value_regret=Estimate(float(regrets.mean()), float(low[1]), float(high[1])),
        values=_GRID,
        gains=gains,
        lowest_utility=float(truthful.min()),
        is_individually_rational=bool(truthful.min() >= -1e-9),
    )


def _halves(units: Units) -> tuple[Rows, Rows]:
    """The rows of every other unit, and those of the rest: no luck is common to both."""
    is_first = np.isin(units, np.unique(units)[::2])
    return np.flatnonzero(is_first), np.flatnonzero(~is_first)


def _cross_fitted(
    sweep: Sweeps, halves: tuple[Rows, Rows], luck: tuple[int, int] | None
) -> tuple[Array, Array]:
    """Gains and regrets by value; with `luck`, of a resample of the units."""
    if luck is not None:
        halves = _resampled(halves, independent(sweep.queries), np.random.default_rng(luck))
    curves = [_on_grid(sweep, half) for half in halves]
    found = [_deviations(*pair) for pair in ((curves[0], curves[1]), (curves[1], curves[0]))]
    return (found[0][0] + found[1][0]) / 2, (found[0][1] + found[1][1]) / 2


def _resampled(
    halves: tuple[Rows, Rows], units: Units, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """The rows of both halves in units drawn with replacement, until both have some."""
    different = np.unique(units)
    while True:
        drawn = rng.choice(different, len(different))
        first, second = (
            np.concatenate([half[units[half] == unit] for unit in drawn]) for half in halves
        )
        if len(first) and len(second):
            return first, second


def _deviations(choosing: tuple[Array, Array], judging: tuple[Array, Array]) -> tuple[Array, Array]:
    """Per value, what the bid that looks best on `choosing` gains on `judging` over the truth."""
    values = _GRID[:, None]
    truth = np.arange(len(_GRID))
    utility = values * choosing[0] - choosing[1]
    best = _best_but_truth(utility)
    judged = values * judging[0] - judging[1]
    gains: Array = judged[truth, best] - judged[truth, truth]
    affordable = np.where(utility >= -1e-9, values * choosing[0], -np.inf)
    best = _best_but_truth(affordable)
    worth = values * judging[0]
    regrets: Array = worth[truth, best] - worth[truth, truth]
    return gains, regrets


def _best_but_truth(utilities: Array) -> Array:
    """The best bid for each value; the truth where nothing is better."""
    truth = np.arange(len(utilities))
    best = utilities.argmax(axis=1)
    is_better = utilities[truth, best] > utilities[truth, truth] + 1e-9
    return np.where(is_better, best, truth)


def _on_grid(sweep: Sweeps, rows: Rows) -> tuple[Array, Array]:
    """Clicks and payments at bids 1..100.

    Between measured bids, and from nothing for a bid of nothing, it is the price of a click that
    is straight, not the payment, which is none at first price.
    """
    clicks, payments = sweep.clicks[rows].mean(axis=0), sweep.payments[rows].mean(axis=0)
    on_grid = np.interp(_GRID, sweep.bids, clicks)
    is_clicked = clicks > 0
    if not is_clicked.any():
        return on_grid, np.zeros_like(_GRID)
    prices = np.append(0.0, payments[is_clicked] / clicks[is_clicked])
    bids = np.append(0.0, sweep.bids[is_clicked])
    return on_grid, on_grid * np.interp(_GRID, bids, prices)
