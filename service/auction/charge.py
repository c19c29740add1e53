"""What an inserted ad will cost: first price, so an advertiser pays exactly what it bid.

Allocation moves continuously with bids, so the smallest bid that keeps an allocation is the bid
itself; first and second price coincide (LLM-Auction, arXiv 2512.10551).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.auction.eligibility import EligibleAd

Event = Literal["click", "impression"]
"""What is paid for."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One ad's price for one event, at most once. `expires_at`: UTC; later events are free."""

    ad_id: str
    event: Event
    rule: Literal["first_price"]
    price_micros: int
    currency: str
    expires_at: datetime


def first_price(offer: EligibleAd, currency: str, expires_at: datetime) -> Charge:
    """The charge for a click on `offer`: its bid, in `currency` (ISO 4217)."""
    return Charge(
        ad_id=offer.ad.ad_id,
        event="click",
        rule="first_price",
        price_micros=offer.bid_micros,
        currency=currency,
        expires_at=expires_at,
    )
