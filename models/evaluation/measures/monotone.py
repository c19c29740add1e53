"""Whether a higher bid is shown, and clicked, no less."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from scipy.stats import rankdata

from models.evaluation.measures.bootstrap import (
    RESAMPLES,
    Array,
    Estimate,
    estimate,
    resampled_means,
)
from models.evaluation.measures.sweeps import Curve, Units, by_unit, curve, independent

_SIGNIFICANCE = 0.05


class BidResponse(StrEnum):
    """What a mechanism makes of a higher bid."""

    RISES = "rises"
    """More of it, and nowhere significantly less: monotone."""
    FLAT = "flat"
    """Nothing that these answers show: blind to bids, or too few answers."""
    FALLS = "falls"
    """Significantly less somewhere: not monotone."""


@dataclass(frozen=True, slots=True)
class Monotonicity:
    """The response (exposures or clicks, 0 to 1) to one bid, all else equal.

    spearman: between bid and response, -1 to 1; single answers are shown or not, so it stays well
    below 1 however steep the curve. pooled_spearman: between bid and mean response. decrease: the
    largest one, from any bid to any higher one; decrease_p: how often noise around a curve that
    does not fall shows as large a one. gain: mean of the upper third of bids less the lower
    third's. ads: how many were swept; falling: of how many the response falls with the bid, by
    Spearman's rho of its own rows, at 5 % for all ads together (permutation tests, Holm's
    correction).
    """

    curve: Curve
    spearman: Estimate
    pooled_spearman: Estimate
    decrease: float
    decrease_p: float
    gain: Estimate
    ads: int
    falling: int
    verdict: BidResponse


def monotonicity(bids: Array, rows: Array, queries: Units, seed: int) -> Monotonicity:
    """rows: of responses, shape (rows, bids); at least two, of at least three bids. queries: shape
    (rows,); in each the bid of one ad is swept, and its rows are resampled together."""
    units = independent(queries)
    responses = by_unit(rows, units)
    decrease = float(_largest_decrease(responses.mean(axis=0, keepdims=True))[0])
    third = len(bids) // 3

    def upper_less_lower(columns: Array) -> Array:
        rise: Array = columns[:, -third:].mean(axis=1) - columns[:, :third].mean(axis=1)
        return rise

    gain = estimate(responses, upper_less_lower, seed)
    decrease_p = _decrease_p(responses, decrease, seed)
    return Monotonicity(
        curve=curve(bids, responses, seed),
        spearman=_spearman(bids, rows, units, seed),
        pooled_spearman=estimate(responses, partial(_rank_correlations, bids), seed),
        decrease=decrease,
        decrease_p=decrease_p,
        gain=gain,
        ads=len(np.unique(queries)),
        falling=_falling(bids, rows, queries, seed),
        verdict=_verdict(gain, decrease_p),
    )


def _verdict(gain: Estimate, decrease_p: float) -> BidResponse:
    if decrease_p < _SIGNIFICANCE:
        return BidResponse.FALLS
    return BidResponse.RISES if gain.low > 0 else BidResponse.FLAT


def _largest_decrease(curves: Array) -> Array:
    """The largest fall from a bid to any higher one, 0 or more, in each of `curves`' rows."""
    falls: Array = np.maximum.accumulate(curves, axis=1) - curves
    largest: Array = falls.max(axis=1)
    return largest


def _decrease_p(responses: Array, decrease: float, seed: int) -> float:
    """A flat curve is where noise shows the largest decreases, so it is what is tested against;
    the maximum over all pairs of bids is resampled, so that many looks find no more."""
    noise = resampled_means(responses, seed) - responses.mean(axis=0)
    # Without the tolerance, rounding would tell apart decreases that are equal.
    as_large = _largest_decrease(noise) >= decrease - 1e-12
    return float((1 + as_large.sum()) / (1 + len(as_large)))


def _rank_correlations(bids: Array, curves: Array) -> Array:
    """Spearman's rho of `bids` with each of `curves`' rows; 0 for a row that never changes."""
    ranks = rankdata(curves, axis=1) - (len(bids) + 1) / 2
    bid_ranks = rankdata(bids) - (len(bids) + 1) / 2
    scales = np.sqrt((ranks**2).sum(axis=1) * (bid_ranks**2).sum())
    rho: Array = np.divide(ranks @ bid_ranks, scales, out=np.zeros(len(curves)), where=scales > 0)
    return rho


def _falling(bids: Array, rows: Array, queries: Units, seed: int) -> int:
    """In how many queries the mean response falls with the bid, significantly."""
    rng = np.random.default_rng(seed)
    different = np.unique(queries)
    # With fewer, the smallest p-value that there is would exceed the first of Holm's limits.
    turns = math.ceil(2 * len(different) / _SIGNIFICANCE / RESAMPLES)
    p_values = [_falling_p(bids, rows[queries == query], turns, rng) for query in different]
    limits = _SIGNIFICANCE / np.arange(len(p_values), 0, -1)
    is_beyond = np.sort(p_values) >= limits
    return int(is_beyond.argmax()) if is_beyond.any() else len(p_values)


def _falling_p(bids: Array, rows: Array, turns: int, rng: np.random.Generator) -> float:
    """Were bids without effect, each row's responses could stand at any bid; `turns` times
    RESAMPLES such orders are drawn, RESAMPLES at a time to spare memory."""
    rho = float(_rank_correlations(bids, rows.mean(axis=0, keepdims=True))[0])
    as_low = 0
    for _ in range(turns):
        shuffled = rng.permuted(np.broadcast_to(rows, (RESAMPLES, *rows.shape)), axis=2)
        as_low += int((_rank_correlations(bids, shuffled.mean(axis=1)) <= rho + 1e-12).sum())
    return (1 + as_low) / (1 + turns * RESAMPLES)


def _spearman(bids: Array, responses: Array, units: Units, seed: int) -> Estimate:
    """Between all bids and responses; within rows, so that levels of queries do not count."""
    ranks = np.apply_along_axis(rankdata, 1, responses)
    ranks -= ranks.mean(axis=1, keepdims=True)
    bid_ranks = rankdata(bids) - (len(bids) + 1) / 2
    # Rows that never change have no ranks; they count as 0, as they should.
    rows = by_unit(np.stack([ranks @ bid_ranks, (ranks**2).sum(axis=1)], axis=1), units)
    scale = float((bid_ranks**2).sum())

    def correlation(means: Array) -> Array:
        spread = np.sqrt(means[:, 1] * scale)
        rho: Array = np.divide(means[:, 0], spread, out=np.zeros(len(means)), where=spread > 0)
        return rho

    return estimate(rows, correlation, seed)
