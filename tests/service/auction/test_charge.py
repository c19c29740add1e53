from collections.abc import Callable
from datetime import UTC, datetime

from service.auction.ad import Ad
from service.auction.charge import Charge, charge_id, first_price
from service.auction.eligibility import EligibleAd


def test_an_advertiser_pays_its_bid_for_a_click(make_ad: Callable[..., Ad]) -> None:
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)
    offer = EligibleAd(make_ad("Ad-7", reserve="0.5"), 1_250_000)
    assert first_price(offer, "EUR", expires_at) == Charge(
        "Ad-7", "click", "first_price", 1_250_000, "EUR", expires_at
    )


def test_an_impression_costs_the_bid_times_the_click_rate(make_ad: Callable[..., Ad]) -> None:
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)
    charge = first_price(EligibleAd(make_ad("Ad-7"), 1_250_000), "EUR", expires_at, pctr=0.1)
    assert (charge.event, charge.price_micros) == ("impression", 125_000)


def test_a_charge_has_one_name_of_its_own() -> None:
    name = charge_id("resp_1", "Ad-1")
    assert name == charge_id("resp_1", "Ad-1") == "chg_" + name[4:]
    others = {charge_id(*place) for place in (("resp_1", "Ad-2"), ("resp_2", "Ad-1"), ("", "Ad-1"))}
    assert len(others | {name}) == 4
