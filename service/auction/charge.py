"""What an inserted ad will cost: first price, so an advertiser pays exactly what it bid.

Allocation moves continuously with bids, so the smallest bid that keeps an allocation is the bid
itself; first and second price coincide (LLM-Auction, arXiv 2512.10551).
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

from service.auction.eligibility import EligibleAd
from service.auction.price import price_micros

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


def first_price(
    offer: EligibleAd, currency: str, expires_at: datetime, pctr: float | None = None
) -> Charge:
    """The charge for an event on `offer`, in `currency` (ISO 4217).

    A click costs the bid. With `pctr`, a rate of clicks above 0 and up to 1, it is the impression
    that is paid for: at the bid times that rate.
    """
    return Charge(
        ad_id=offer.ad.ad_id,
        event="click" if pctr is None else "impression",
        rule="first_price",
        price_micros=price_micros(offer.bid_micros, pctr),
        currency=currency,
        expires_at=expires_at,
    )


def charge_id(response_id: str, ad_id: str) -> str:
    """The name of the one charge that this ad in this answer can have; the same for ever."""
    place = f"{response_id}\0{ad_id}".encode()
    return f"chg_{blake2b(place, digest_size=12, person=b'charge').hexdigest()}"
