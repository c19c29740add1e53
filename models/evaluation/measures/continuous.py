"""Whether the response to a bid has a step.

At each bid, lines are fitted to the responses just below and just above; where they meet apart is a
jump. The largest jump is held against what noise makes of the smoothed curve, which has none.

It is the mean over seeds that may have no step. With one seed, an auction that draws its winner at
random is a step, at a bid that depends on the seed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from models.evaluation.measures.bootstrap import Array, resampled_means
from models.evaluation.measures.sweeps import Curve, curve

FEWEST_BIDS: Final = 20
_WIDEST_WINDOW = 10
_NARROWEST_WINDOW = 3
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
    """Too few rows, or too much noise to see even a jump of half of the whole range."""
    FLAT = "flat"
    """All bids get the same: nothing moves in which a jump could be seen."""


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
    """responses: shape (rows, bids), 0 to 1, at least one row and 20 evenly spaced bids; a row for
    each seed. Raises ValueError for fewer.
    """
    if len(bids) < FEWEST_BIDS or not len(responses):
        raise ValueError(f"Jumps need {FEWEST_BIDS} bids or more, not {len(bids)}")
    window = min(_WIDEST_WINDOW, len(bids) // 4)
    means = responses.mean(axis=0)
    smooth = _smoother(np.arange(len(bids), dtype=np.float64), window / 2) @ means
    detector = _jump_detector(len(bids), window)
    found = detector @ means
    largest = int(np.abs(found).argmax())
    noise = resampled_means(responses, seed) - means
    largest_of_noise = np.abs((smooth + noise) @ detector.T).max(axis=1)
    limit = float(np.quantile(largest_of_noise, 1 - _SIGNIFICANCE))
    as_large = largest_of_noise >= abs(found[largest]) - 1e-12
    p_value = float((1 + as_large.sum()) / (1 + len(as_large)))
    at = largest + _NARROWEST_WINDOW
    return Jumps(
        curve=curve(bids, responses, seed),
        smooth=smooth,
        jump=float(found[largest]),
        jump_bid=float(bids[at - 1] + bids[at]) / 2,
        limit=limit,
        p_value=p_value,
        verdict=_verdict(responses, p_value, limit),
    )


def _verdict(responses: Array, p_value: float, limit: float) -> Continuity:
    if len(responses) < _FEWEST_ROWS:
        return Continuity.UNDECIDED
    if np.ptp(responses.mean(axis=0)) == 0:
        return Continuity.FLAT
    if p_value < _SIGNIFICANCE:
        return Continuity.STEP
    return Continuity.CONTINUOUS if limit < _COARSEST else Continuity.UNDECIDED


def _smoother(steps: Array, bandwidth: float) -> Array:
    """The matrix that turns responses into local lines' values, shape (bids, bids)."""
    rows = []
    for at in steps:
        weights = np.exp(-0.5 * ((steps - at) / bandwidth) ** 2)
        rows.append(_line_at_zero(steps - at, weights))
    return np.array(rows)


def _jump_detector(count: int, window: int) -> Array:
    """The matrix that turns responses into jumps between neighbours, shape (jumps, bids).

    Lines are fitted to `window` bids on either side, to fewer near the ends.
    """
    places = range(_NARROWEST_WINDOW, count - _NARROWEST_WINDOW + 1)
    detector = np.zeros((len(places), count))
    for row, place in zip(detector, places, strict=True):
        below, above = min(window, place), min(window, count - place)
        row[place - below : place] = -_line_at_edge(below)[::-1]
        row[place : place + above] = _line_at_edge(above)
    return detector


def _line_at_edge(count: int) -> Array:
    """The weights of `count` responses, the nearest first, for a line's value half a step off."""
    return _line_at_zero(np.arange(count, dtype=np.float64) + 0.5, np.ones(count))


def _line_at_zero(x: Array, weights: Array) -> Array:
    """The weights by which responses at `x` give the fitted line's value at 0."""
    total, first, second = weights.sum(), (weights * x).sum(), (weights * x**2).sum()
    line: Array = weights * (second - first * x) / (total * second - first**2)
    return line
