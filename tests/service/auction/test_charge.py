from collections.abc import Callable
from datetime import UTC, datetime

from service.auction.ad import Ad
from service.auction.charge import Charge, first_price
from service.auction.eligibility import EligibleAd


def test_an_advertiser_pays_its_bid_for_a_click(make_ad: Callable[..., Ad]) -> None:
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)
    offer = EligibleAd(make_ad("Ad-7", reserve="0.5"), 1_250_000)
    assert first_price(offer, "EUR", expires_at) == Charge(
        "Ad-7", "click", "first_price", 1_250_000, "EUR", expires_at
    )
