"""Rates and prices that follow from counts."""

from decimal import Decimal

import pytest

from service.auction.figures import Figures, total


@pytest.mark.parametrize(
    ("clicks", "shown", "ctr"),
    [(0, 0, None), (0, 7, "0"), (1, 3, "0.333333"), (2, 3, "0.666667"), (5, 5, "1")],
)
def test_ctr_is_clicks_by_showings(clicks: int, shown: int, ctr: str | None) -> None:
    expected = None if ctr is None else Decimal(ctr)
    assert Figures(clicks=clicks, shown=shown).ctr == expected


def test_the_average_price_is_of_what_was_paid_for() -> None:
    assert Figures(shown=9).average_price_micros is None
    assert Figures(clicks=3, spend_micros=1_000).average_price_micros == 333
    both = Figures(clicks=1, impressions_charged=1, spend_micros=10**15 + 1)
    assert both.average_price_micros == 500_000_000_000_000


def test_a_total_sums_every_column_and_reason() -> None:
    one = Figures(1, 2, 3, 4, 5, {"paused": 1, "policy": 2})
    other = Figures(10, 20, 30, 40, 50, {"paused": 10})
    assert total([one, other]) == Figures(11, 22, 33, 44, 55, {"paused": 11, "policy": 2})
    assert total([]) == Figures()
