"""Whether the response to a bid has a step.

At each bid, lines are fitted to the responses just below and just above; where they meet apart is a
jump. The largest jump is held against what noise makes of the smoothed curve, which has none.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from models.evaluation.measures.bootstrap import RESAMPLES, Array, resampled_means
from models.evaluation.measures.sweeps import Curve, curve

_WINDOW = 10
_BANDWIDTH = 5.0
_FEWEST_ROWS = 5
_SIGNIFICANCE = 0.05
_COARSEST = 0.5


class Continuity(StrEnum):
    """What a bid sweep shows."""

    CONTINUOUS = "continuous"
    """No jump, and one of half of the whole range would have been seen."""
    STEP = "step"
    """A jump that noise does not explain."""
    UNDECIDED = "undecided"
    """Too few answers to see even a jump of half of the whole range."""


@dataclass(frozen=True, slots=True)
class Jumps:
    """smooth: the curve by local lines, shape (bids,). jump: the largest, signed; at `jump_bid`.

    limit: what 95 % of the largest jumps stay under when there is none, so the smallest that
    could be seen. p_value: how often noise shows as large a one.
    """

    curve: Curve
    smooth: Array
    jump: float
    jump_bid: float
    limit: float
    p_value: float
    verdict: Continuity


def jumps(bids: Array, responses: Array, seed: int) -> Jumps:
    """responses: shape (rows, bids), 0 to 1, at least one row and 2 * 10 evenly spaced bids.

    Raises ValueError for fewer.
    """
    if len(bids) < 2 * _WINDOW or not len(responses):
        raise ValueError(f"Jumps need {2 * _WINDOW} bids or more, not {len(bids)}")
    means = responses.mean(axis=0)
    smooth = _smoother(bids) @ means
    detector = _jump_detector(len(bids))
    found = detector @ means
    largest = int(np.abs(found).argmax())
    noise = _noise(responses, means - smooth, seed)
    largest_of_noise = np.abs((smooth + noise) @ detector.T).max(axis=1)
    limit = float(np.quantile(largest_of_noise, 1 - _SIGNIFICANCE))
    as_large = largest_of_noise >= abs(found[largest]) - 1e-12
    p_value = float((1 + as_large.sum()) / (1 + len(as_large)))
    at = largest + _WINDOW
    return Jumps(
        curve=curve(bids, responses, seed),
        smooth=smooth,
        jump=float(found[largest]),
        jump_bid=float(bids[at - 1] + bids[at]) / 2,
        limit=limit,
        p_value=p_value,
        verdict=_verdict(p_value, limit),
    )


def _verdict(p_value: float, limit: float) -> Continuity:
    if p_value < _SIGNIFICANCE:
        return Continuity.STEP
    return Continuity.CONTINUOUS if limit < _COARSEST else Continuity.UNDECIDED


def _noise(responses: Array, residuals: Array, seed: int) -> Array:
    """Deviations from the mean curve as chance might make them, shape (resamples, bids)."""
    if len(responses) >= _FEWEST_ROWS:
        deviations: Array = resampled_means(responses, seed) - responses.mean(axis=0)
        return deviations
    # Too few rows to resample: the residuals with random signs (wild bootstrap).
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (RESAMPLES, len(residuals)))
    noise: Array = signs * residuals
    return noise


def _smoother(bids: Array) -> Array:
    """The matrix that turns responses into local lines' values, shape (bids, bids)."""
    rows = []
    for at in bids:
        weights = np.exp(-0.5 * ((bids - at) / _BANDWIDTH) ** 2)
        rows.append(_line_at_zero(bids - at, weights))
    return np.array(rows)


def _jump_detector(count: int) -> Array:
    """The matrix that turns responses into jumps between neighbours, shape (jumps, bids)."""
    offsets: Array = np.arange(_WINDOW, dtype=np.float64) + 0.5
    from_above = _line_at_zero(offsets, np.ones(_WINDOW))
    from_below = _line_at_zero(-offsets[::-1], np.ones(_WINDOW))
    detector = np.zeros((count - 2 * _WINDOW + 1, count))
    for row in range(len(detector)):
        detector[row, row : row + _WINDOW] = -from_below
        detector[row, row + _WINDOW : row + 2 * _WINDOW] = from_above
    return detector


def _line_at_zero(x: Array, weights: Array) -> Array:
    """The weights by which responses at `x` give the fitted line's value at 0."""
    total, first, second = weights.sum(), (weights * x).sum(), (weights * x**2).sum()
    line: Array = weights * (second - first * x) / (total * second - first**2)
    return line
