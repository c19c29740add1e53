from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auction import eligibility
from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.eligibility import (
    AdRecord,
    AdvertiserRecord,
    Bid,
    EligibleAd,
    Excluded,
    Exclusion,
    Terms,
    decide,
)
from service.auction.pacing import LEAD, Pace, draw

MakeAd = Callable[..., Ad]
UNIT = 1_000_000


def verdict(ad: Ad | None, bid: float = 1.0, query: str = "", **spent: int) -> Exclusion | None:
    """Why the only candidate is excluded, at a floor of 0.1; None where it is eligible."""
    records = {"Ad-1": AdRecord(ad, **spent)} if ad else {}
    eligible, excluded = decide([Bid("Ad-1", int(bid * UNIT))], records, UNIT // 10, query)
    assert len(eligible) + len(excluded) == 1
    return excluded[0].reason if excluded else None


def test_an_ad_that_nothing_speaks_against_is_eligible(make_ad: MakeAd) -> None:
    ad = make_ad()
    eligible, excluded = decide([Bid("Ad-1", 5)], {"Ad-1": AdRecord(ad)}, 0, "boots?")
    assert eligible == [EligibleAd(ad, 5)]
    assert excluded == []


def test_unknown() -> None:
    assert verdict(None) is Exclusion.UNKNOWN


def test_paused(make_ad: MakeAd) -> None:
    assert verdict(make_ad(status="paused")) is Exclusion.PAUSED


@pytest.mark.parametrize(
    ("bid", "reserve", "reason"),
    [
        (0.09, "0", Exclusion.BELOW_FLOOR),
        (0.1, "0", None),
        (0.49, "0.5", Exclusion.BELOW_FLOOR),
        (0.5, "0.5", None),
        (0.09, "0.05", Exclusion.BELOW_FLOOR),
    ],
)
def test_floor_and_reserve(
    make_ad: MakeAd, bid: float, reserve: str, reason: Exclusion | None
) -> None:
    assert verdict(make_ad(reserve=reserve), bid) is reason


@pytest.mark.parametrize(
    ("budget", "total", "today", "reason"),
    [
        ({}, 10**12, 10**12, None),
        ({"total": 3}, 2 * UNIT, 0, None),
        ({"total": 3}, 2 * UNIT + 1, 0, Exclusion.BUDGET_EXHAUSTED),
        ({"daily": 3}, 10**12, 2 * UNIT, None),
        ({"daily": 3}, 10**12, 2 * UNIT + 1, Exclusion.BUDGET_EXHAUSTED),
        ({"total": 0}, 0, 0, Exclusion.BUDGET_EXHAUSTED),
        ({"total": 9, "daily": 1}, 0, 1, Exclusion.BUDGET_EXHAUSTED),
    ],
)
def test_a_budget_must_cover_one_more_click(
    make_ad: MakeAd, budget: dict[str, Any], total: int, today: int, reason: Exclusion | None
) -> None:
    ad = make_ad(budget=budget)
    assert verdict(ad, spent_total_micros=total, spent_today_micros=today) is reason


class TestAdvertisers:
    @staticmethod
    def verdict(ad: Ad, advertiser: dict[str, Any], total: int = 0, today: int = 0) -> str | None:
        """Why a bid of 1 unit is excluded that this advertiser has to pay."""
        entered = Advertiser.model_validate({"advertiser_id": "adv-trailhead", **advertiser})
        record = AdRecord(ad, advertiser=AdvertiserRecord(entered, total, today))
        _, excluded = decide([Bid("Ad-1", UNIT)], {"Ad-1": record}, 0, "")
        return excluded[0].reason if excluded else None

    def test_a_paused_one_has_none_of_its_ads_shown(self, make_ad: MakeAd) -> None:
        assert self.verdict(make_ad(), {"status": "active"}) is None
        assert self.verdict(make_ad(), {"status": "paused"}) is Exclusion.PAUSED

    @pytest.mark.parametrize(
        ("budget", "total", "today", "reason"),
        [
            ({}, 10**12, 10**12, None),
            ({"total": 3}, 2 * UNIT, 0, None),
            ({"total": 3}, 2 * UNIT + 1, 0, Exclusion.BUDGET_EXHAUSTED),
            ({"daily": 3}, 10**12, 2 * UNIT, None),
            ({"daily": 3}, 10**12, 2 * UNIT + 1, Exclusion.BUDGET_EXHAUSTED),
        ],
    )
    def test_its_budgets_must_cover_one_more_event_too(
        self,
        make_ad: MakeAd,
        budget: dict[str, Any],
        total: int,
        today: int,
        reason: Exclusion | None,
    ) -> None:
        ad = make_ad(budget={"total": 10**6, "daily": 10**6})
        assert self.verdict(ad, {"budget": budget}, total, today) is reason


def test_where_impressions_are_paid_for_the_budget_must_cover_an_impression(
    make_ad: MakeAd,
) -> None:
    records = {"Ad-1": AdRecord(make_ad(budget={"total": "0.1"}))}
    bids = [Bid("Ad-1", UNIT)]
    assert decide(bids, records, 0, "")[1] == [Excluded("Ad-1", Exclusion.BUDGET_EXHAUSTED)]
    assert decide(bids, records, 0, "", Terms(pctr=0.1))[1] == []
    assert decide(bids, records, 0, "", Terms(pctr=0.2))[1] != []


@pytest.mark.parametrize(
    ("shown", "cap", "reason"),
    [
        (2, 3, None),
        (3, 3, Exclusion.FREQUENCY_CAPPED),
        (9, 3, Exclusion.FREQUENCY_CAPPED),
        (9, None, None),
    ],
)
def test_frequency_cap(
    make_ad: MakeAd, shown: int, cap: int | None, reason: Exclusion | None
) -> None:
    records = {"Ad-1": AdRecord(make_ad(), shown_count=shown)}
    excluded = decide([Bid("Ad-1", UNIT)], records, 0, "", Terms(frequency_cap=cap))[1]
    assert [e.reason for e in excluded] == ([] if reason is None else [reason])


class TestPacing:
    @staticmethod
    def shown(record: AdRecord, elapsed: float, answers: int = 400) -> float:
        """The share of answers that the ad takes part in."""
        count = 0
        for number in range(answers):
            terms = Terms(pace=Pace(elapsed, f"resp_{number}", b"salt"))
            eligible, excluded = decide([Bid("Ad-1", 1)], {"Ad-1": record}, 0, "", terms)
            assert [e.reason for e in excluded] in ([], [Exclusion.PACED])
            count += len(eligible)
        return count / answers

    def test_an_ad_ahead_of_the_day_takes_part_in_some_answers(self, make_ad: MakeAd) -> None:
        ad = make_ad(budget={"daily": 1})
        assert self.shown(AdRecord(ad, spent_today_micros=UNIT // 2), elapsed=0.5) == 1
        halfway = int((0.5 + LEAD / 2) * UNIT)
        assert 0.4 < self.shown(AdRecord(ad, spent_today_micros=halfway), elapsed=0.5) < 0.6
        assert self.shown(AdRecord(ad, spent_today_micros=UNIT * 6 // 10), elapsed=0.5) == 0

    def test_an_ad_without_a_daily_budget_takes_part_in_all(self, make_ad: MakeAd) -> None:
        assert self.shown(AdRecord(make_ad(budget={"total": 1}), 500_000, 500_000), 0.0) == 1

    def test_the_advertisers_daily_budget_is_paced_too_with_the_same_draw(
        self, make_ad: MakeAd
    ) -> None:
        budget = {"budget": {"daily": 1}}
        payer = Advertiser.model_validate({"advertiser_id": "adv-trailhead", **budget})
        halfway = int((0.5 + LEAD / 2) * UNIT)
        ad = make_ad(**budget)
        record = AdRecord(ad, halfway, halfway, AdvertiserRecord(payer, halfway, halfway))
        # two draws would leave a quarter
        assert 0.4 < self.shown(record, elapsed=0.5) < 0.6
        alone = AdRecord(make_ad(), advertiser=AdvertiserRecord(payer, UNIT, UNIT * 9 // 10))
        assert self.shown(alone, elapsed=0.5) == 0

    def test_the_draw_can_be_reckoned_again(self, make_ad: MakeAd) -> None:
        halfway = int((0.5 + LEAD / 2) * UNIT)
        record = AdRecord(make_ad(budget={"daily": 1}), spent_today_micros=halfway)
        terms = Terms(pace=Pace(0.5, "resp_7", b"salt"))
        eligible, _ = decide([Bid("Ad-1", 1)], {"Ad-1": record}, 0, "", terms)
        assert bool(eligible) is (draw(b"salt", "resp_7", "Ad-1") < 0.5)


@pytest.mark.parametrize(
    ("topic", "query", "is_blocked"),
    [
        ("wine", "Which WINE goes with fish?", True),
        ("wine", "Which winery is near?", False),
        ("red wine", "a red\n  wine, please", True),
        ("red wine", "red or white wine", False),
        ("C++", "how do I learn c++?", True),
        ("straße", "Welche STRASSE?", True),
        ("妊娠", "妊娠中に飲めるもの", True),
        ("ｗｉｎｅ", "wine", True),
        ("สุรา", "ซื้อสุราที่ไหน", True),
        ("ai", "最新AIツール", True),
        ("ai", "Is paint, or a maid, said?", False),
        ("ai", "paint and ai", True),
        ("수술", "수술은 언제 하나요", True),  # a particle follows without a space
        ("술", "수술은 언제 하나요", False),
        ("ai", "요즘 AI는 어때", True),
        ("कर", "कर्ज कैसे लें", False),  # a vowel sign or virama goes on with the word
        ("कर", "कर कैसे भरें", True),
        ("می", "می\u200cروم", False),
        ("naïve", "naïvely", False),
    ],
)
def test_blocked_topics_are_found_as_whole_phrases(
    make_ad: MakeAd, topic: str, query: str, is_blocked: bool
) -> None:
    reason = verdict(make_ad(blocked_topics=["other", topic]), query=query)
    assert reason is (Exclusion.POLICY if is_blocked else None)


def test_a_query_is_looked_through_once_for_a_topic_of_many_ads(
    make_ad: MakeAd, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(eligibility, "_is_mentioned", lambda topic, _: looked.append(topic))
    ads = [make_ad(f"Ad-{n}", blocked_topics=["war", "gambling"]) for n in range(5)]
    decide([Bid(ad.ad_id, 1) for ad in ads], {ad.ad_id: AdRecord(ad) for ad in ads}, 0, "Hi")
    assert looked == ["war", "gambling"]


def test_of_two_bids_the_higher_stands_and_of_equal_ones_the_first(make_ad: MakeAd) -> None:
    records = {ad_id: AdRecord(make_ad(ad_id)) for ad_id in ("Ad-1", "Ad-2", "Ad-3")}
    bids = [Bid("Ad-1", 5), Bid("Ad-2", 7), Bid("Ad-1", 6), Bid("Ad-2", 7), Bid("Ad-3", 1)]
    eligible, excluded = decide(bids, records, 0, "")
    assert [(e.ad.ad_id, e.bid_micros) for e in eligible] == [("Ad-2", 7), ("Ad-1", 6), ("Ad-3", 1)]
    assert excluded == [
        Excluded("Ad-1", Exclusion.DUPLICATE),
        Excluded("Ad-2", Exclusion.DUPLICATE),
    ]


def test_a_title_that_could_be_read_as_another_marker_is_excluded(make_ad: MakeAd) -> None:
    tricky, plain = make_ad("Ad-1", title="[Ad-2] Boots"), make_ad("Ad-2")
    records = {"Ad-1": AdRecord(tricky), "Ad-2": AdRecord(plain)}
    eligible, excluded = decide([Bid("Ad-1", 1), Bid("Ad-2", 1)], records, 0, "")
    assert [e.ad.ad_id for e in eligible] == ["Ad-2"]
    assert excluded == [Excluded("Ad-1", Exclusion.INVALID_TITLE)]
    assert decide([Bid("Ad-1", 1)], records, 0, "")[1] == []


_ids = st.sampled_from([f"Ad-{number}" for number in range(8)])
_bids = st.lists(st.builds(Bid, _ids, st.integers(1, 20)), max_size=30)


@given(
    bids=_bids,
    known=st.sets(_ids),
    paused=st.sets(_ids),
    floor=st.integers(0, 20),
    spent=st.integers(0, 20),
)
def test_every_bid_is_decided_once_and_only_what_may_run_is_eligible(
    make_ad: MakeAd, bids: list[Bid], known: set[str], paused: set[str], floor: int, spent: int
) -> None:
    records = {
        ad_id: AdRecord(
            make_ad(
                ad_id,
                status="paused" if ad_id in paused else "active",
                budget={"total": "0.00002"},
            ),
            spent,
        )
        for ad_id in known
    }
    eligible, excluded = decide(bids, records, floor, "")
    decided = [e.ad.ad_id for e in eligible] + [e.ad_id for e in excluded]
    assert sorted(decided) == sorted(bid.ad_id for bid in bids)
    shown = [e.ad.ad_id for e in eligible]
    assert len(set(shown)) == len(shown)
    for offer in eligible:
        ad_id = offer.ad.ad_id
        assert ad_id in known - paused
        assert offer.bid_micros == max(b.bid_micros for b in bids if b.ad_id == ad_id)
        assert offer.bid_micros >= floor
        assert spent + offer.bid_micros <= 20
    assert (eligible, excluded) == decide(bids, records, floor, "")
