from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auction.money import MAX_BUDGET_UNITS, MAX_UNITS, to_micros, to_text


@given(st.integers(0, MAX_UNITS * 1_000_000))
def test_text_and_micros_are_the_same_amount(micros: int) -> None:
    assert to_micros(Decimal(to_text(micros))) == micros


@pytest.mark.parametrize(
    ("amount", "micros", "text"),
    [
        ("12.5", 12_500_000, "12.5"),
        ("0.000001", 1, "0.000001"),
        ("1E+2", 100_000_000, "100"),
        ("1.500000000", 1_500_000, "1.5"),
        ("0", 0, "0"),
        ("1000000", 1_000_000_000_000, "1000000"),
    ],
)
def test_amounts(amount: str, micros: int, text: str) -> None:
    assert to_micros(Decimal(amount)) == micros
    assert to_text(micros) == text


def test_negative_micros_are_written_with_their_sign() -> None:
    assert to_text(-1_500_000) == "-1.5"


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        ("NaN", "finite"),
        ("Infinity", "finite"),
        ("-0.01", "from 0"),
        ("1000000.000001", "from 0 to 1,000,000"),
        ("0.0000001", "at most 6 decimals"),
        ("1.0000000000000000000000000000000000000001", "at most 6 decimals"),
        ("1E-999999", "at most 6 decimals"),
    ],
)
def test_other_amounts_are_refused(amount: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_micros(Decimal(amount))


def test_the_limit_can_be_another() -> None:
    assert to_micros(Decimal(2_000_000), MAX_BUDGET_UNITS) == 2 * 10**12
    assert MAX_BUDGET_UNITS * 10**6 < 2**53  # exact where scripts count in doubles
