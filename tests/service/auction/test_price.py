import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auction.price import price_micros


def test_a_click_costs_the_bid() -> None:
    assert price_micros(1_250_000) == 1_250_000


@pytest.mark.parametrize(
    ("bid", "pctr", "price"),
    [
        (1_000_000, 0.1, 100_000),
        (1_000_000, 1, 1_000_000),
        (999, 0.1, 99),
        (3, 0.1, 1),
        (10**12, 0.07, 70_000_000_000),  # in doubles it would be a micro more
        (10**12, 1e-6, 1_000_000),
    ],
)
def test_an_impression_costs_the_bid_times_the_click_rate(
    bid: int, pctr: float, price: int
) -> None:
    assert price_micros(bid, pctr) == price


@given(st.integers(1, 10**12), st.floats(0, 1, exclude_min=True))
def test_no_price_is_above_the_bid_or_nothing(bid: int, pctr: float) -> None:
    assert 1 <= price_micros(bid, pctr) <= bid
