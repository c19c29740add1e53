"""Whether a place in the request's list of candidates can be told from what is shown.

Mechanisms that write under the contract list candidates in an order that the request's does not
move (`models.contract.order`): for them that must come out as nothing at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures.bootstrap import RESAMPLES, Array, Estimate, difference
from models.evaluation.record import Record

_SIGNIFICANCE = 0.05
_SMALLEST_BIAS = 0.1


class OrderEffect(StrEnum):
    """What the order of the candidates does."""

    NONE = "none"
    """Nothing that noise does not explain, and 0.1 of exposure would have been seen."""
    BIASED = "biased"
    """An ad is shown more in some places than in others."""
    UNDECIDED = "undecided"
    """Too few answers to tell."""


@dataclass(frozen=True, slots=True)
class OrderFreeness:
    """by_place: share of answers that show the ad at each place, shape (places,).

    early_advantage: exposure in the request's first half less that in its second, of the same ads.
    p_value: how often exposures shuffled over the orders spread as far over the places.
    """

    by_place: Array
    early_advantage: Estimate
    p_value: float
    verdict: OrderEffect


def order_freeness(records: Sequence[Record], seed: int) -> OrderFreeness | None:
    """records: one mechanism's, the same auctions in several orders. None where there are none.

    An ad's exposures can be shuffled over the orders of its auction if order does not matter.
    """
    exposures, places = _by_ad_and_order(records)
    if not len(exposures):
        return None
    count = int(places.max()) + 1
    rng = np.random.default_rng(seed)
    spread = _spread(exposures, places, count)
    shuffled = np.array(
        [_spread(rng.permuted(exposures, axis=1), places, count) for _ in range(RESAMPLES)]
    )
    p_value = float((1 + (shuffled >= spread - 1e-12).sum()) / (1 + len(shuffled)))
    is_early = places < count / 2
    early = _mean_where(exposures, is_early)
    advantage = difference(early, _mean_where(exposures, ~is_early), seed)
    return OrderFreeness(
        by_place=_by_place(exposures, places, count),
        early_advantage=advantage,
        p_value=p_value,
        verdict=_verdict(p_value, advantage),
    )


def _verdict(p_value: float, advantage: Estimate) -> OrderEffect:
    if p_value < _SIGNIFICANCE:
        return OrderEffect.BIASED
    widest = max(abs(advantage.low), abs(advantage.high))
    return OrderEffect.NONE if widest < _SMALLEST_BIAS else OrderEffect.UNDECIDED


def _by_ad_and_order(records: Sequence[Record]) -> tuple[Array, NDArray[np.int64]]:
    """Exposures (0 or 1) and places of every ad, shape (ads, orders); of auctions with all orders,
    and ads that stand in both halves of the list."""
    rows: dict[str, list[Record]] = {}
    for one in sorted(records, key=lambda one: one.key):
        rows.setdefault(one.row, []).append(one)
    orders = max(map(len, rows.values()), default=0)
    exposures, places = [], []
    for row in rows.values():
        if len(row) < orders or orders < 2:
            continue
        for bidder in row[0].bidders:
            exposures.append([float(one.shows(bidder.ad_id)) for one in row])
            places.append([_place(one, bidder.ad_id) for one in row])
    return np.array(exposures), np.array(places, dtype=np.int64)


def _place(one: Record, ad_id: str) -> int:
    return [bidder.ad_id for bidder in one.bidders].index(ad_id)


def _by_place(exposures: Array, places: NDArray[np.int64], count: int) -> Array:
    shown = np.bincount(places.ravel(), exposures.ravel(), count)
    share: Array = shown / np.maximum(1, np.bincount(places.ravel(), minlength=count))
    return share


def _spread(exposures: Array, places: NDArray[np.int64], count: int) -> float:
    return float(_by_place(exposures, places, count).var())


def _mean_where(exposures: Array, mask: NDArray[np.bool_]) -> Array:
    total: Array = (exposures * mask).sum(axis=1) / np.maximum(1, mask.sum(axis=1))
    return total
