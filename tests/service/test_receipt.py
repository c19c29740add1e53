"""Receipts: why each candidate was in or out, what it costs, and that nobody has changed it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from models.contract.prompt import Profile, Turn
from models.contract.reading import Fault, FaultKind, Segment, SegmentKind
from models.engine.interface import ModelIdentity, Usage
from service.answer import AdPart, Answer, Ask, Offers, Stages, TextPart
from service.auction.ad import Ad
from service.auction.charge import first_price
from service.auction.eligibility import AdRecord, Bid, EligibleAd, decide
from service.auction.signing_key import SigningKey, SigningKeys
from service.receipt import build_receipt, is_genuine, pseudonym, sign_receipt, text_hash

NOW = datetime(2030, 1, 7, 12, tzinfo=UTC)
SECRET = b"s" * 32
KEY = SigningKey("k1", b"1" * 32)
KEYS = SigningKeys(KEY, (KEY,))
ID = "resp_" + "0f" * 16


def make_ask(*bids: Bid, **fields: Any) -> Ask:
    given: dict[str, Any] = {
        "response_id": ID,
        "query": "Which boots?",
        "bids": bids,
        "conversation": (Turn("user", "Hello"),),
        "profile": Profile("Nurse", ("hiking",)),
        "user_id": "user-1",
        "max_ads": 2,
        "temperature": 1.0,
        "top_p": 0.8,
        "top_k": 20,
        "max_tokens": 64,
        "seed": 2**60,
        "received_at": 0.0,
        "deadline_at": 60.0,
        "now": NOW,
    }
    return Ask(**{**given, **fields})


def make_answer(offers: Offers, *shown: EligibleAd, faults: tuple[Fault, ...] = ()) -> Answer:
    def part(at: int, offer: EligibleAd) -> AdPart:
        segment = Segment(SegmentKind.AD, offer.ad.title, at * 10, at * 10 + 9, offer.ad.ad_id)
        return AdPart(offer, segment, first_price(offer, "USD", NOW))

    return Answer(
        response_id=ID,
        text="Try these.",
        parts=(TextPart("Try"), *(part(at, offer) for at, offer in enumerate(shown))),
        offers=offers,
        faults=faults,
        model=ModelIdentity("some/model", "abc123"),
        contract="1-inline",
        usage=Usage(10, 0, 5),
        finish_reason="stop",
        stages=Stages(0.0),
        trace_headers={},
    )


@pytest.fixture
def signed(make_ad: Callable[..., Ad]) -> dict[str, Any]:
    offer = EligibleAd(make_ad("Ad-1"), 1_250_000)
    ask, answer = make_ask(Bid("Ad-1", 1_250_000)), make_answer(Offers((offer,), ()), offer)
    document: dict[str, Any] = json.loads(
        sign_receipt(build_receipt(ask, answer, "chat", SECRET, with_text=False), KEY)
    )
    return document


def test_every_bid_is_accounted_for_in_its_order(make_ad: Callable[..., Ad]) -> None:
    ads = [make_ad("Ad-1"), make_ad("Ad-2", status="paused"), make_ad("Ad-3")]
    bids = [
        Bid("Ad-1", 3),
        Bid("Ad-2", 9),
        Bid("Ad-1", 5),
        Bid("Ad-0", 1),
        Bid("Ad-3", 2),
        Bid("Ad-1", 5),
        Bid("Ad-2", 8),
    ]
    eligible, excluded = decide(bids, {ad.ad_id: AdRecord(ad) for ad in ads}, 0, "boots")
    offers = Offers(tuple(reversed(eligible)), tuple(excluded))
    receipt = build_receipt(make_ask(*bids), make_answer(offers), "chat", SECRET, with_text=False)
    names = ("ad_id", "bid_micros", "place", "excluded")
    assert [tuple(map(c.get, names)) for c in receipt["candidates"]] == [
        ("Ad-1", 3, None, "duplicate"),
        ("Ad-2", 9, None, "paused"),
        ("Ad-1", 5, 2, None),
        ("Ad-0", 1, None, "unknown"),
        ("Ad-3", 2, 1, None),
        ("Ad-1", 5, None, "duplicate"),
        ("Ad-2", 8, None, "duplicate"),
    ]


def test_an_ad_without_room_in_the_prompt_says_so(make_ad: Callable[..., Ad]) -> None:
    offers = tuple(EligibleAd(make_ad(f"Ad-{n}"), n) for n in (1, 2))
    kept = Offers(offers, ()).keep(offers[1:])
    ask = make_ask(Bid("Ad-1", 1), Bid("Ad-2", 2))
    receipt = build_receipt(ask, make_answer(kept), "chat", SECRET, with_text=False)
    assert [c.get("excluded") for c in receipt["candidates"]] == ["no_room", None]


@pytest.mark.parametrize(
    ("is_away", "reason"), [(True, "ads_unavailable"), (False, "not_considered")]
)
def test_candidates_that_nobody_looked_at_are_not_called_eligible(
    is_away: bool, reason: str
) -> None:
    answer = make_answer(Offers((), (), is_away))
    receipt = build_receipt(make_ask(Bid("Ad-1", 1)), answer, "chat", SECRET, with_text=False)
    assert receipt["candidates"][0]["excluded"] == reason
    assert receipt["ads_unavailable"] is is_away


def test_an_insertion_holds_all_terms_of_its_charge(signed: dict[str, Any]) -> None:
    assert signed["receipt"]["insertions"] == [
        {
            "ad_id": "Ad-1",
            "advertiser_id": "adv-trailhead",
            "position": 1,
            "start": 0,
            "end": 9,
            "landing_url": "https://www.trailhead-boots.example/",
            "bid_micros": 1_250_000,
            "charge": {
                "event": "click",
                "rule": "first_price",
                "price_micros": 1_250_000,
                "currency": "USD",
                "expires_at": "2030-01-07T12:00:00+00:00",
            },
        }
    ]


def test_faults_are_kept() -> None:
    fault = Fault(FaultKind.UNKNOWN_ID, 3, 7, "Ad-9")
    answer = make_answer(Offers((), ()), faults=(fault,))
    receipt = build_receipt(make_ask(), answer, "chat", SECRET, with_text=False)
    assert receipt["faults"] == [{"kind": "unknown_id", "start": 3, "end": 7, "ad_id": "Ad-9"}]


def test_no_text_and_no_user_is_in_a_receipt(signed: dict[str, Any]) -> None:
    written = json.dumps(signed)
    for text in ("Which boots", "Hello", "Nurse", "hiking", "user-1", "Try these"):
        assert text not in written


def test_text_is_kept_where_the_deployment_wants_it() -> None:
    answer = make_answer(Offers((), ()))
    receipt = build_receipt(make_ask(), answer, "chat", SECRET, with_text=True)
    assert receipt["text"] == {
        "query": "Which boots?",
        "conversation": [{"role": "user", "content": "Hello"}],
        "profile": {"info": "Nurse", "interests": ["hiking"]},
        "answer": "Try these.",
    }


def test_hashes_tell_texts_and_deployments_apart(signed: dict[str, Any]) -> None:
    receipt = signed["receipt"]
    assert receipt["query_hash"] == text_hash("Which boots?", SECRET)
    assert receipt["query_hash"] != text_hash("Which shoes?", SECRET)
    assert receipt["query_hash"] != text_hash("Which boots?", b"t" * 32)
    assert receipt["user"] == pseudonym("user-1", SECRET)
    assert pseudonym("user-1", SECRET) != pseudonym("user-1", b"t" * 32)
    # a user's pseudonym must not be found by asking whether a text of that name was sent
    assert not text_hash("user-1", SECRET).startswith(pseudonym("user-1", SECRET))


def test_a_signed_receipt_is_genuine_however_its_json_was_rewritten(
    signed: dict[str, Any],
) -> None:
    turned = json.loads(json.dumps(signed, indent=2), object_pairs_hook=lambda p: dict(p[::-1]))
    assert is_genuine(turned["receipt"], turned["signature"], KEYS)


def test_it_holds_no_number_that_other_tools_would_change(signed: dict[str, Any]) -> None:
    def numbers(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [n for held in value.values() for n in numbers(held)]
        if isinstance(value, list):
            return [n for held in value for n in numbers(held)]
        return [value] if isinstance(value, int | float) else []

    assert all(isinstance(n, int) and abs(n) < 2**53 for n in numbers(signed))
    assert signed["receipt"]["sampling"]["seed"] == str(2**60)
    assert signed["receipt"]["sampling"]["temperature"] == "1.0"


def test_any_change_breaks_the_signature(signed: dict[str, Any]) -> None:
    receipt, signature = signed["receipt"], signed["signature"]
    for name in receipt:
        assert not is_genuine({**receipt, name: "changed"}, signature, KEYS)
        assert not is_genuine({k: v for k, v in receipt.items() if k != name}, signature, KEYS)
    assert not is_genuine({**receipt, "more": 1}, signature, KEYS)
    for name in signature:
        assert not is_genuine(receipt, {**signature, name: "é"}, KEYS)
        assert not is_genuine(receipt, {k: v for k, v in signature.items() if k != name}, KEYS)
    other = SigningKey("k1", b"2" * 32)
    assert not is_genuine(receipt, signature, SigningKeys(other, (other,)))


def test_an_older_key_still_holds_after_rotation(signed: dict[str, Any]) -> None:
    fresh = SigningKey("k2", b"2" * 32)
    keys = SigningKeys(fresh, (fresh, KEY))
    assert is_genuine(signed["receipt"], signed["signature"], keys)


def test_a_receipt_of_the_most_candidates_costs_little(make_ad: Callable[..., Ad]) -> None:
    offers = tuple(EligibleAd(make_ad(f"Ad-{n}"), 1_000_000 + n) for n in range(200))
    ask = make_ask(*(Bid(offer.ad.ad_id, offer.bid_micros) for offer in offers))
    answer = make_answer(Offers(offers, ()), *offers[:10])
    seconds = []
    for _ in range(50):
        begun = time.perf_counter()
        sign_receipt(build_receipt(ask, answer, "chat", SECRET, with_text=False), KEY)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.0015
