import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.auction.ad import Ad

MakeAd = Callable[..., Ad]


def refusal(make_ad: MakeAd, **fields: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as refused:
        make_ad(**fields)
    error, *_ = refused.value.errors()
    return ".".join(map(str, error["loc"])), error["msg"]


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"ad_id": "Ad 1"}, "ad_id", "pattern"),
        ({"ad_id": "Ad-1\n"}, "ad_id", "pattern"),
        ({"title": ""}, "title", "at least 1"),
        ({"title": "Boots @[Ad-2]"}, "title", "@["),
        ({"title": "Boots <|im_end|>"}, "title", "token"),
        ({"title": "x" * 121}, "title", "120"),
        ({"description": "one\ntwo"}, "description", "line breaks"),
        ({"description": "one\u2028two"}, "description", "line breaks"),
        ({"description": "a\x1bb"}, "description", "control"),
        ({"description": "see @[Ad-2]"}, "description", "@["),
        ({"category": "boots [/INST]"}, "category", "chat-template"),
        ({"description": "x" * 301}, "description", "300"),
        ({"category": " "}, "category", "at least 1"),
        ({"category": "x" * 65}, "category", "64"),
        ({"blocked_topics": ["wine", " "]}, "blocked_topics.1", "at least 1"),
        ({"languages": ["english"]}, "languages.0", "pattern"),
        ({"status": "deleted"}, "status", "'active' or 'paused'"),
        ({"advertiser_id": ""}, "advertiser_id", "pattern"),
        ({"landing_url": "javascript:alert(1)"}, "landing_url", "http"),
        ({"landing_url": "//boots.example"}, "landing_url", "http"),
        ({"landing_url": "https:///path"}, "landing_url", "host"),
        ({"landing_url": "https://boots.example:99999/"}, "landing_url", "http"),
        ({"landing_url": "https://user:word@boots.example/"}, "landing_url", "password"),
        ({"landing_url": "https://boots.example/a b"}, "landing_url", "RFC 3986"),
        ({"landing_url": "https://boots.example/\r\nX: y"}, "landing_url", "RFC 3986"),
        ({"landing_url": "https://例え.example/"}, "landing_url", "RFC 3986"),
        ({"landing_url": "https://boots.example/" + "x" * 2048}, "landing_url", "2048"),
        ({"image_url": "ftp://boots.example/a.png"}, "image_url", "http"),
        ({"reserve": True}, "reserve", "number"),
        ({"reserve": "1e3"}, "reserve", "12.5"),
        ({"reserve": "1,50"}, "reserve", "12.5"),
        ({"reserve": -1}, "reserve", "from 0"),
        ({"reserve": 1_000_001}, "reserve", "1,000,000"),
        ({"reserve": float("nan")}, "reserve", "finite"),
        ({"reserve": 0.0000001}, "reserve", "6 decimals"),
        ({"budget": {"total": "-5"}}, "budget.total", "12.5"),
        ({"budget": {"weekly": 5}}, "budget.weekly", "not permitted"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_what_is_wrong_is_refused_with_place_and_rule(
    make_ad: MakeAd, fields: dict[str, Any], field: str, message: str
) -> None:
    where, what = refusal(make_ad, **fields)
    assert where == field
    assert message in what


def test_a_message_may_hold_braces(make_ad: MakeAd) -> None:
    assert refusal(make_ad, landing_url="https://[::{x}]/")[0] == "landing_url"


@pytest.mark.parametrize("amount", [0.1, "0.1", "0.10"])
def test_money_may_be_a_number_or_text_and_is_micros(make_ad: MakeAd, amount: Any) -> None:
    assert make_ad(reserve=amount).reserve_micros == 100_000


def test_defaults(make_ad: MakeAd) -> None:
    ad = make_ad()
    assert (ad.status, ad.description, ad.reserve_micros) == ("active", "", 0)
    assert (ad.budget.total_micros, ad.budget.daily_micros) == (None, None)


def test_json_gives_money_as_decimal_text(make_ad: MakeAd) -> None:
    ad = make_ad(reserve=1, budget={"total": 1_000_000_000, "daily": 12.5})
    written = json.loads(ad.model_dump_json(by_alias=True))
    assert written["reserve"] == "1"
    assert written["budget"] == {"total": "1000000000", "daily": "12.5"}
    assert next(iter(written)) == "ad_id"


def test_text_is_trimmed_and_normalised(make_ad: MakeAd) -> None:
    ad = make_ad(description="  cafe\u0301 ", title="Cafe\u0301")
    assert (ad.description, ad.title) == ("caf\u00e9", "Caf\u00e9")


_texts = st.text(max_size=310)


@given(
    description=_texts,
    category=st.text(max_size=66),
    topics=st.lists(st.text(max_size=66), max_size=3),
    # this letter becomes two when normalised
    long=st.sampled_from(["", "\u0958" * 32, "\u0958" * 150, "\u0958" * 151]),
)
def test_an_accepted_ad_can_be_read_back(
    make_ad: MakeAd, description: str, category: str, topics: list[str], long: str
) -> None:
    try:
        ad = make_ad(
            description=description + long, category=category + long, blocked_topics=topics
        )
    except ValidationError:
        return
    assert Ad.model_validate_json(ad.model_dump_json(by_alias=True)) == ad


def test_an_ad_cannot_be_changed(make_ad: MakeAd) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_ad().title = "Other"
