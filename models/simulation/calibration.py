"""How the click model treats ads that are known to fit, and others: its calibration, for people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from models.simulation.auctions import fits
from models.simulation.click_model import ClickModel
from models.simulation.nouns import Auction

_BATCH = 20


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one kind. mean, quantiles (10, 50 and 90 %): of their click probability, each
    alone in its answer and woven in natively; 0 to 1."""

    name: str
    ads: int
    mean: float
    quantiles: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """auc: how well relevance alone tells fitting ads from others, 0.5 (not at all) to 1; None
    where there are not both kinds."""

    groups: tuple[Group, ...]
    auc: float | None


def calibrate(
    users: ClickModel,
    auctions: Sequence[Auction],
    progress: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Read off what `users` would do; at least one auction. `progress`: how many are read."""
    probabilities, relevances = [], []
    for start in range(0, len(auctions), _BATCH):
        batch = auctions[start : start + _BATCH]
        probabilities += users.native_probabilities(batch)
        relevances += [users.relevances(auction) for auction in batch]
        progress(len(probabilities))
    probability, relevance = np.concatenate(probabilities), np.concatenate(relevances)
    does_fit = np.array([fits(ad, auction.query) for auction in auctions for ad in auction.ads])
    is_adless = np.array(
        [auction.query.category is None for auction in auctions for _ in auction.ads]
    )
    kinds = (
        ("fit the question", does_fit),
        ("do not fit it", ~does_fit & ~is_adless),
        ("at questions without a category", is_adless),
        ("all", np.ones_like(does_fit)),
    )
    groups = (_group(name, probability[kind]) for name, kind in kinds if kind.any())
    has_both = does_fit.any() and not does_fit.all()
    auc = float(roc_auc_score(does_fit, relevance)) if has_both else None
    return Calibration(tuple(groups), auc)


def _group(name: str, probability: NDArray[np.float64]) -> Group:
    low, median, high = np.quantile(probability, [0.1, 0.5, 0.9])
    mean = float(probability.mean())
    return Group(name, probability.size, mean, (float(low), float(median), float(high)))
