"""Whether the right ads are shown, where it is known which ones serve a query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.measures.bootstrap import Estimate, mean
from models.evaluation.measures.efficiency import queries_of
from models.evaluation.record import Bidder, Record


@dataclass(frozen=True, slots=True)
class Targeting:
    """Shares of answers, 0 to 1; NaN where no auction is of the kind.

    fitting_shown: that show a fitting ad, of those with one among the candidates. better_shown:
    that show the fitting ad of the highest bid * click potential, of those with two or more.
    none_shown: without an ad, of those that no candidate fits.
    """

    fitting_shown: Estimate
    better_shown: Estimate
    none_shown: Estimate


def targeting(records: Sequence[Record], seed: int) -> Targeting:
    """records: one mechanism's, each of an auction of its own, of queries whose fit is known."""
    fits = [(one, _fitting(one)) for one in records]
    return Targeting(
        fitting_shown=_share([(one, _shows(one, ads)) for one, ads in fits if ads], seed),
        better_shown=_share(
            [(one, _shows(one, [max(ads, key=_worth)])) for one, ads in fits if len(ads) > 1], seed
        ),
        none_shown=_share([(one, not one.showings) for one, ads in fits if not ads], seed),
    )


def _fitting(one: Record) -> list[Bidder]:
    """The bidders that serve the query: none where it has no category, since no ad is meant for
    it then."""
    return [b for b in one.bidders if one.category is not None and b.category == one.category]


def _worth(bidder: Bidder) -> float:
    return bidder.bid * (bidder.click_potential or 0.0)


def _shows(one: Record, bidders: Sequence[Bidder]) -> bool:
    return any(one.shows(bidder.ad_id) for bidder in bidders)


def _share(answers: Sequence[tuple[Record, bool]], seed: int) -> Estimate:
    """The share of `answers` that are hits."""
    hits = np.array([is_hit for _, is_hit in answers], dtype=np.float64)
    return mean(hits, seed, queries_of([one for one, _ in answers]))
