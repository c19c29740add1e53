"""Estimates with bootstrap intervals."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Clusters = Sequence[Hashable] | None
"""Which cluster each value is of: those of one are alike, and are resampled together, as one unit.
None: each value is a unit of its own."""
RESAMPLES: Final = 2000
_TAIL_PERCENT = 2.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; the bounds are NaN where fewer than two units were seen."""

    value: float
    low: float
    high: float


def estimate(
    rows: Array, statistic: Callable[[Array], Array], seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Return `statistic` of `rows` with its interval.

    rows: shape (units, columns); units are resampled whole. statistic: from the columns' means,
    shape (samples, columns), to shape (samples,); so anything made of means is one line.
    """
    value = float(statistic(rows.mean(axis=0, keepdims=True))[0]) if len(rows) else float("nan")
    if len(rows) < 2:
        return Estimate(value, float("nan"), float("nan"))
    spread = statistic(resampled_means(rows, seed, resamples))
    spread = spread[np.isfinite(spread)]
    if not len(spread):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(spread, (_TAIL_PERCENT, 100 - _TAIL_PERCENT))
    return Estimate(value, float(low), float(high))


def resampled_means(rows: Array, seed: int, resamples: int = RESAMPLES) -> Array:
    """Return the columns' means in each resample of `rows`: shape (resamples, columns)."""
    # How often each unit is in a resample, times the units: no copy of the rows is made.
    units = len(rows)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), resamples)
    return counts @ rows / units


def sums(values: Array, clusters: Clusters) -> Array:
    """Return the sum of `values` over each cluster, in the order of the clusters' first values."""
    if clusters is None:
        return values
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    added = np.zeros(len(numbers))
    for cluster, value in zip(clusters, values, strict=True):
        added[numbers[cluster]] += value
    return added


def mean(values: Array, seed: int, clusters: Clusters = None) -> Estimate:
    """Return the mean of the clusters' means of `values`."""
    means = sums(values, clusters) / sums(np.ones(len(values)), clusters)
    return estimate(means[:, None], lambda means: means[:, 0], seed)


def ratio(numerators: Array, denominators: Array, seed: int, clusters: Clusters = None) -> Estimate:
    """Return the ratio of two sums over the same clusters; NaN where the second is 0."""

    def quotient(means: Array) -> Array:
        missing = np.full(len(means), np.nan)
        quotients: Array = np.divide(means[:, 0], means[:, 1], out=missing, where=means[:, 1] > 0)
        return quotients

    totals = [sums(numerators, clusters), sums(denominators, clusters)]
    return estimate(np.stack(totals, axis=1), quotient, seed)


def relative(ours: Array, theirs: Array, seed: int, clusters: Clusters = None) -> Estimate:
    """Return the ratio of two paired means; NaN where `theirs` has an interval that reaches 0,
    since then the ratio may be anything."""
    below = mean(theirs, seed, clusters)
    if (below.value if np.isnan(below.low) else below.low) > 0:
        return ratio(ours, theirs, seed, clusters)
    return Estimate(float("nan"), float("nan"), float("nan"))


def difference(ours: Array, theirs: Array, seed: int, clusters: Clusters = None) -> Estimate:
    """Return the mean of the paired differences."""
    return mean(ours - theirs, seed, clusters)
