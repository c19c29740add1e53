"""How far two simulated users agree on the same answers; or one of them with people's labels."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

_FEWEST_ADS = 3
_OUTCOMES = "outcomes.jsonl"
_STUDY = "efficiency"

Key = tuple[str, ...]
"""Auction id, mechanism (empty where only one answered), ad id, and where known the answer."""
Verdicts = Mapping[Key, float]
"""A click probability, 0 to 1, by whatever tells the ad in the answer."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two users on the ads that both judged.

    ads, auctions: how many were judged by both. spearman: rank correlation of the two users' click
    probabilities, -1 to 1; low, high: its 95 % interval, by bootstrap over auctions. means: the
    mean probability of each.
    """

    ads: int
    auctions: int
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
    auctions: dict[str, list[int]] = {}
    for row, (auction_id, *_) in enumerate(both):
        auctions.setdefault(auction_id, []).append(row)
    low, high = _interval(pairs, list(auctions.values()), seed, resamples)
    means = pairs.mean(axis=0)
    return Agreement(
        ads=len(both),
        auctions=len(auctions),
        spearman=_spearman(pairs),
        low=low,
        high=high,
        means=(float(means[0]), float(means[1])),
    )


def read_verdicts(first: Path, second: Path) -> tuple[Verdicts, Verdicts]:
    """Read two users' verdicts: each from a file of labels, or from the directory of a run of
    `llm-auction evaluate`. Of two runs only answers that are the same in both will match.

    Raises OSError, and ValueError that names the line.
    """
    is_answer_known = first.is_dir() and second.is_dir()

    def read(path: Path) -> Verdicts:
        return read_outcomes(path, is_answer_known) if path.is_dir() else read_labels(path)

    return read(first), read(second)


def read_labels(path: Path) -> Verdicts:
    """Read labels: JSON lines with `auction_id`, `ad_id`, `probability` (0 to 1) or `clicked`, and
    where several mechanisms answered `mechanism`.

    Several labels of one ad, by several people, count as their mean. Raises OSError, and
    ValueError that names the line.
    """

    def label(row: dict[str, Any]) -> list[tuple[Key, float]]:
        probability = row["probability"] if "probability" in row else row["clicked"]
        key = (str(row["auction_id"]), str(row.get("mechanism", "")), str(row["ad_id"]))
        return [(key, float(probability))]

    votes: dict[Key, list[float]] = {}
    form = "an object with auction_id, ad_id and clicked or probability"
    for key, probability in _read(path, label, form):
        votes.setdefault(key, []).append(probability)
    return {key: sum(labels) / len(labels) for key, labels in votes.items()}


def read_outcomes(directory: Path, with_answer: bool) -> Verdicts:
    """Read what a run's user made of the answers that every mechanism gave once.

    with_answer: the answer is part of the key. Raises OSError, and ValueError that names the line.
    """

    def verdicts(row: dict[str, Any]) -> list[tuple[Key, float]]:
        if row["study"] != _STUDY:
            return []
        answer = (row["answer"],) if with_answer else ()
        return [
            ((row["auction_id"], row["mechanism"], ad["ad_id"], *answer), float(ad["probability"]))
            for ad in row["showings"]
        ]

    return dict(_read(directory / _OUTCOMES, verdicts, "an outcome of `evaluate run`"))


def _read(
    path: Path, parse: Callable[[dict[str, Any]], list[tuple[Key, float]]], form: str
) -> Iterator[tuple[Key, float]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    if path.name == _OUTCOMES:
        lines.pop()  # where nobody has ended it, its writer died writing it
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = parse(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not {form} ({error})") from error
        for key, probability in found:
            if not 0 <= probability <= 1:
                raise ValueError(f"{path}, line {number}: {probability:g} is not within 0 to 1")
            yield key, probability


def _interval(
    pairs: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    auctions: Sequence[Sequence[int]],
    seed: int,
    resamples: int,
) -> tuple[float, float]:
    """95 % by percentiles; whole auctions are drawn, since their ads compete with each other."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = chance.integers(len(auctions), size=len(auctions))
        rows = np.concatenate([auctions[index] for index in drawn])
        if (np.ptp(pairs[rows], axis=0) > 0).all():
            found.append(_spearman(pairs[rows]))
    if not found:
        return -1.0, 1.0
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _spearman(pairs: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
