"""Money: integer micros (millionths of the deployment's one currency), never floats."""

from decimal import Decimal

MAX_UNITS = 1_000_000
"""Largest bid or reserve, in units of the currency."""

MAX_BUDGET_UNITS = 1_000_000_000
"""Largest budget; its micros (1e15) stay exact where Redis scripts count in doubles."""

DECIMALS = 6
_MICRO = Decimal(1).scaleb(-DECIMALS)
_MICROS_PER_UNIT = 10**DECIMALS


def to_micros(amount: Decimal, max_units: int = MAX_UNITS) -> int:
    """`amount` units of the currency as micros.

    Raises ValueError unless 0 <= amount <= max_units with at most 6 decimals.
    """
    if not amount.is_finite():
        raise ValueError("must be a finite number")
    if not 0 <= amount <= max_units:
        raise ValueError(f"must be from 0 to {max_units:,}")
    rounded = amount.quantize(_MICRO)
    if rounded != amount:
        raise ValueError(f"must have at most {DECIMALS} decimals")
    return int(rounded.scaleb(DECIMALS))


def to_text(micros: int) -> str:
    """`micros` as a decimal in units, as short as it is exact: 12_500_000 is "12.5"."""
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), _MICROS_PER_UNIT)
    return f"{sign}{units}.{rest:0{DECIMALS}}".rstrip("0").rstrip(".")
