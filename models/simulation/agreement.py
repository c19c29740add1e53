"""How far two simulated users agree on the same answers; or one of them with people's labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

_FEWEST_ADS = 3

Verdicts = Mapping[tuple[str, str], float]
"""A click probability, 0 to 1, by auction id and ad id."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two users on the ads that both judged.

    ads, answers: how many were judged by both. spearman: rank correlation of the two users' click
    probabilities, -1 to 1; low, high: its 95 % interval, by bootstrap over answers. means: the mean
    probability of each.
    """

    ads: int
    answers: int
    spearman: float
    low: float
    high: float
    means: tuple[float, float]


def agreement(first: Verdicts, second: Verdicts, seed: int = 1, resamples: int = 1000) -> Agreement:
    """Compare two users on the ads that both have a verdict on.

    Raises ValueError where these are fewer than 3, or one user says the same of all of them: then
    there are no ranks to compare.
    """
    both = sorted(set(first) & set(second))
    if len(both) < _FEWEST_ADS:
        raise ValueError(
            f"Only {len(both)} ads were judged by both: at least {_FEWEST_ADS} must be"
        )
    pairs = np.array([(first[key], second[key]) for key in both])
    for name, column in zip(("first", "second"), pairs.T, strict=True):
        if np.ptp(column) == 0:
            raise ValueError(f"The {name} user says {column[0]:g} of every ad: nothing to rank")
    answers: dict[str, list[int]] = {}
    for row, (auction_id, _) in enumerate(both):
        answers.setdefault(auction_id, []).append(row)
    low, high = _interval(pairs, list(answers.values()), seed, resamples)
    means = pairs.mean(axis=0)
    return Agreement(
        ads=len(both),
        answers=len(answers),
        spearman=_spearman(pairs),
        low=low,
        high=high,
        means=(float(means[0]), float(means[1])),
    )


def read_labels(path: Path) -> dict[tuple[str, str], float]:
    """Read labels: JSON lines with `auction_id`, `ad_id` and `probability` (0 to 1) or `clicked`.

    Several labels of one ad, by several people, count as their mean. Raises OSError, and
    ValueError that names the line.
    """
    votes: dict[tuple[str, str], list[float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            label = float(row["probability"] if "probability" in row else row["clicked"])
            key = (str(row["auction_id"]), str(row["ad_id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not an object with auction_id, ad_id and clicked or "
                f"probability ({error})"
            ) from error
        if not 0 <= label <= 1:
            raise ValueError(f"{path}, line {number}: {label:g} is not within 0 to 1")
        votes.setdefault(key, []).append(label)
    return {key: sum(labels) / len(labels) for key, labels in votes.items()}


def _interval(
    pairs: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    answers: Sequence[Sequence[int]],
    seed: int,
    resamples: int,
) -> tuple[float, float]:
    """95 % by percentiles; whole answers are drawn, since their ads compete with each other."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = chance.integers(len(answers), size=len(answers))
        rows = np.concatenate([answers[index] for index in drawn])
        if (np.ptp(pairs[rows], axis=0) > 0).all():
            found.append(_spearman(pairs[rows]))
    if not found:
        return -1.0, 1.0
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _spearman(pairs: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
