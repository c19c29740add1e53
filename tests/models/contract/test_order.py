"""Candidates stand in the prompt in an order that bids buy, and nothing else does."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import order
from models.contract.order import SHARPNESS
from models.contract.prompt import Candidate, Layout

SALTS = [b"%d" % number for number in range(4000)]


def candidate(ad_id: str, bid: str = "1") -> Candidate:
    return Candidate(ad_id, f"Ad {ad_id}", "tents", "", Decimal(bid))


def listing_order(layout: Layout, ads: list[Candidate], salt: bytes) -> list[Candidate]:
    places = order.listing_order(layout, [ad.ad_id for ad in ads], [ad.bid for ad in ads], salt)
    return [ads[place] for place in places]


def share_first(one: Candidate, other: Candidate) -> float:
    """How often `one` is listed before `other`, over salts."""
    first = [listing_order(Layout.INLINE, [one, other], salt)[0] for salt in SALTS]
    return sum(found is one for found in first) / len(SALTS)


@pytest.mark.parametrize(("bid", "other"), [("50", "50"), ("55", "50"), ("0.07", "0.05")])
def test_odds_of_standing_before_a_rival_are_those_of_the_bids(bid: str, other: str) -> None:
    odds = (float(bid) / float(other)) ** SHARPNESS
    expected = odds / (1 + odds)

    found = share_first(candidate("a", bid), candidate("b", other))

    assert abs(found - expected) < 4 * (expected * (1 - expected) / len(SALTS)) ** 0.5


def test_a_likelier_click_counts_like_a_higher_bid() -> None:
    ids, bids = ["a", "b"], [Decimal(10), Decimal(10)]
    for salt in SALTS[:200]:
        by_pctr = order.listing_order(Layout.INLINE, ids, bids, salt, [0.1, 0.2])
        by_bid = order.listing_order(Layout.INLINE, ids, [Decimal(10), Decimal(20)], salt)
        assert by_pctr == by_bid


def test_equal_click_rates_change_nothing() -> None:
    ids, bids = [f"Ad-{n}" for n in range(6)], [Decimal(n + 1) for n in range(6)]
    for salt in SALTS[:200]:
        expected = order.listing_order(Layout.INLINE, ids, bids, salt)
        assert order.listing_order(Layout.INLINE, ids, bids, salt, [0.07] * 6) == expected


def test_a_much_higher_bid_stands_first_under_nearly_every_salt() -> None:
    assert share_first(candidate("a", "100"), candidate("b", "30")) > 0.999


@given(
    bids=st.lists(st.integers(1, 100), min_size=1, max_size=12),
    raised=st.integers(0, 11),
    more=st.integers(1, 50),
    salt=st.binary(min_size=1, max_size=64),
)
def test_a_raised_bid_never_moves_back(
    bids: list[int], raised: int, more: int, salt: bytes
) -> None:
    raised %= len(bids)

    def place(bid: int) -> int:
        listed = [candidate(f"Ad-{n}", str(bid if n == raised else b)) for n, b in enumerate(bids)]
        ids = [one.ad_id for one in listing_order(Layout.INLINE, listed, salt)]
        return ids.index(f"Ad-{raised}")

    assert place(bids[raised] + more) <= place(bids[raised])


@given(layout=st.sampled_from(Layout), shuffle=st.permutations(range(20)))
def test_the_order_of_the_request_buys_no_place(layout: Layout, shuffle: list[int]) -> None:
    ads = [candidate(f"Ad-{number}", str(1 + number // 2)) for number in range(20)]
    shuffled = [ads[number] for number in shuffle]

    assert listing_order(layout, shuffled, b"salt") == listing_order(layout, ads, b"salt")


@pytest.mark.parametrize("layout", Layout)
def test_another_salt_is_another_order_of_the_same_ads(layout: Layout) -> None:
    ads = [candidate(f"Ad-{number}") for number in range(20)]

    monday, tuesday = (listing_order(layout, ads, salt) for salt in (b"monday", b"tuesday"))

    assert monday != tuesday
    assert {ad.ad_id for ad in monday} == {ad.ad_id for ad in tuesday}


def test_bids_do_not_move_a_list_that_is_to_recur() -> None:
    def ids(bids: range) -> list[str]:
        ads = [candidate(f"Ad-{n}", str(bid)) for n, bid in enumerate(bids, start=1)]
        return [ad.ad_id for ad in listing_order(Layout.SPLIT, ads, b"salt")]

    assert ids(range(1, 21)) == ids(range(20, 0, -1))
