"""What an event costs: a click the bid, an impression the bid times the click rate."""

from fractions import Fraction


def price_micros(bid_micros: int, pctr: float | None = None) -> int:
    """The price of one event at a bid of `bid_micros` (above 0) per click.

    pctr: the rate of clicks per impression (above 0, up to 1) where impressions are paid for; None
    where clicks are. Rounded down, but at least 1 micro: so above 0, and never above the bid.
    """
    if pctr is None:
        return bid_micros
    # as it is written in the settings: 0.1 is a tenth, not the double beside it
    return max(1, int(bid_micros * Fraction(str(pctr))))
