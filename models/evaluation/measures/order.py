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

Numbers = NDArray[np.int64]
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

    An auction's answers can be shuffled over its orders if order does not matter; each as a whole,
    since its ads make room for each other.
    """
    rows = _complete_rows(records)
    if not rows:
        return None
    exposures, places, auctions = _by_ad_and_order(rows)
    count = int(places.max()) + 1
    rng = np.random.default_rng(seed)
    orders = np.tile(np.arange(exposures.shape[1]), (len(rows), 1))

    def shuffled() -> Array:
        return np.take_along_axis(exposures, rng.permuted(orders, axis=1)[auctions], axis=1)

    spread = _spread(exposures, places, count)
    chance = np.array([_spread(shuffled(), places, count) for _ in range(RESAMPLES)])
    p_value = float((1 + (chance >= spread - 1e-12).sum()) / (1 + len(chance)))
    is_early = places < count / 2
    early = _mean_where(exposures, is_early)
    queries = [rows[auction][0].query_id for auction in auctions]
    advantage = difference(early, _mean_where(exposures, ~is_early), seed, queries)
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


def _complete_rows(records: Sequence[Record]) -> list[list[Record]]:
    """The auctions with all orders, each as its answers."""
    rows: dict[str, list[Record]] = {}
    for one in sorted(records, key=lambda one: one.key):
        rows.setdefault(one.row, []).append(one)
    orders = max(map(len, rows.values()), default=0)
    return [row for row in rows.values() if len(row) == orders > 1]


def _by_ad_and_order(rows: Sequence[Sequence[Record]]) -> tuple[Array, Numbers, Numbers]:
    """Exposures (0 or 1) and places of every ad of every auction, shape (ads, orders), and the
    number of its auction, shape (ads,)."""
    ads = [(auction, bidder.ad_id) for auction, row in enumerate(rows) for bidder in row[0].bidders]
    exposures = [[float(one.shows(ad_id)) for one in rows[auction]] for auction, ad_id in ads]
    places = [[_place(one, ad_id) for one in rows[auction]] for auction, ad_id in ads]
    auctions = [auction for auction, _ in ads]
    return np.array(exposures), np.array(places, np.int64), np.array(auctions, np.int64)


def _place(one: Record, ad_id: str) -> int:
    return [bidder.ad_id for bidder in one.bidders].index(ad_id)


def _by_place(exposures: Array, places: Numbers, count: int) -> Array:
    shown = np.bincount(places.ravel(), exposures.ravel(), count)
    share: Array = shown / np.maximum(1, np.bincount(places.ravel(), minlength=count))
    return share


def _spread(exposures: Array, places: Numbers, count: int) -> float:
    return float(_by_place(exposures, places, count).var())


def _mean_where(exposures: Array, mask: NDArray[np.bool_]) -> Array:
    total: Array = (exposures * mask).sum(axis=1) / np.maximum(1, mask.sum(axis=1))
    return total
