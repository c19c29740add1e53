"""The demo catalogue: 100 ads in 50 categories, odd enough to try what real titles would."""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise, permutations
from typing import Any
from urllib.parse import urlsplit

import pytest

Row = dict[str, Any]

RESERVED_HOST = re.compile(r"([a-z0-9-]+\.)+example|(www\.)?example\.(com|net|org)")  # RFC 2606
ODD_CHARACTERS = {
    "a straight apostrophe": "'",
    "a straight double quote": '"',
    "a curly apostrophe": "’",
    "a curly double quote": "“",
    "square brackets": "[",
    "round brackets": "(",
    "full-width brackets": "（",
    "an ampersand": "&",
    "a percent sign": "%",
    "an en dash": "–",
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    text = files("service.store").joinpath("demo_ads.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def rows(lines: list[str]) -> list[Row]:
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def titles(rows: list[Row]) -> list[str]:
    return [row["title"] for row in rows]


def _rivals(rows: list[Row]) -> dict[str, list[Row]]:
    by_category: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    return by_category


class TestShape:
    def test_a_hundred_ads_each_with_its_own_id_title_and_description(
        self, rows: list[Row]
    ) -> None:
        for field in ("ad_id", "title", "description", "landing_url"):
            assert len({row[field] for row in rows}) == len(rows) == 100

    def test_every_row_is_an_ad_and_keeps_its_title(self, rows: list[Row]) -> None:
        from service.auction.ad import Ad

        for row in rows:
            ad = Ad.model_validate(row)
            assert (ad.ad_id, ad.title) == (row["ad_id"], row["title"])

    def test_ids_do_not_betray_the_next_one(self, rows: list[Row]) -> None:
        assert all(re.fullmatch(r"Ad-\d{4}", row["ad_id"]) for row in rows)
        numbers = [int(row["ad_id"].removeprefix("Ad-")) for row in rows]
        assert len({after - before for before, after in pairwise(numbers)}) > 3

    def test_nobody_real_is_linked_to(self, rows: list[Row]) -> None:
        for row in rows:
            url = urlsplit(row["landing_url"])
            assert url.scheme == "https"
            assert RESERVED_HOST.fullmatch(url.netloc), row["landing_url"]

    def test_descriptions_say_enough_and_not_too_much(self, rows: list[Row]) -> None:
        for row in rows:
            assert 40 <= len(row["description"]) <= 140, row["ad_id"]


class TestCompetition:
    def test_two_ads_of_different_advertisers_in_each_of_fifty_categories(
        self, rows: list[Row]
    ) -> None:
        rivals = _rivals(rows)
        assert len(rivals) == 50
        for category, pair in rivals.items():
            assert len(pair) == 2, category
            assert len({ad["advertiser_id"] for ad in pair}) == 2, category

    def test_rivals_share_a_language(self, rows: list[Row]) -> None:
        for category, (one, other) in _rivals(rows).items():
            assert set(one["languages"]) & set(other["languages"]), category

    def test_categories_are_plain_lowercase_english(self, rows: list[Row]) -> None:
        for row in rows:
            assert re.fullmatch(r"[a-z]+( [a-z]+){0,2}", row["category"])

    def test_some_advertisers_have_several_ads(self, rows: list[Row]) -> None:
        ads_of = Counter(row["advertiser_id"] for row in rows)
        assert 40 <= len(ads_of) <= 60
        assert max(ads_of.values()) >= 3


class TestMoneyAndStatus:
    def test_budgets_are_of_every_kind(self, rows: list[Row]) -> None:
        kinds = Counter(tuple(row.get("budget", ())) for row in rows)
        assert set(kinds) == {("total", "daily"), ("total",), ()}
        assert min(kinds.values()) >= 3

    def test_amounts_are_decimal_text_and_a_day_is_within_the_total(self, rows: list[Row]) -> None:
        for row in rows:
            budget = row.get("budget", {})
            amounts = [*budget.values(), *([row["reserve"]] if "reserve" in row else [])]
            assert all(re.fullmatch(r"\d+(\.\d{1,6})?", amount) for amount in amounts)
            if "daily" in budget:
                assert Decimal(budget["daily"]) < Decimal(budget["total"])

    def test_two_ads_are_paused_and_a_few_have_a_reserve(self, rows: list[Row]) -> None:
        assert Counter(row["status"] for row in rows) == {"active": 98, "paused": 2}
        assert 5 <= sum("reserve" in row for row in rows) <= 15

    def test_a_budget_runs_out_within_the_bids_of_a_demonstration(self, rows: list[Row]) -> None:
        assert any(Decimal(row.get("budget", {}).get("total", "1000")) < 100 for row in rows)


class TestBlockedTopics:
    def test_wine_keeps_away_from_pregnancy_and_minors(self, rows: list[Row]) -> None:
        for wine in _rivals(rows)["wine"]:
            assert {"pregnancy", "minors"} <= set(wine["blocked_topics"])

    def test_no_ad_blocks_what_it_sells(self, rows: list[Row]) -> None:
        for row in rows:
            said = " ".join((row["category"], row["title"], row["description"])).casefold()
            assert not [topic for topic in row.get("blocked_topics", ()) if topic in said]


class TestTitles:
    def test_lengths_range_from_two_to_about_ninety(self, titles: list[str]) -> None:
        lengths = sorted(map(len, titles))
        assert lengths[0] == 2
        assert 85 <= lengths[-1] <= 120

    def test_no_title_can_be_mistaken_for_a_marker(self, titles: list[str]) -> None:
        assert not [title for title in titles if "@[" in title]

    def test_no_title_begins_another(self, titles: list[str]) -> None:
        assert not [pair for pair in permutations(titles, 2) if pair[1].startswith(pair[0])]

    def test_text_is_nfc_on_one_line_without_controls(self, rows: list[Row]) -> None:
        for row in rows:
            for text in (row["title"], row["description"], row["category"]):
                assert unicodedata.is_normalized("NFC", text)
                assert text == text.strip()
                assert not {unicodedata.category(c) for c in text} & {"Cc", "Cf", "Zl", "Zp"}

    @pytest.mark.parametrize("char", ODD_CHARACTERS.values(), ids=ODD_CHARACTERS.keys())
    def test_holds_the_character(self, titles: list[str], char: str) -> None:
        assert any(char in title for title in titles)

    def test_holds_an_at_sign_between_letters(self, titles: list[str]) -> None:
        assert any(re.search(r"[A-Za-z]@[A-Za-z]", title) for title in titles)

    def test_begins_with_a_bracket(self, titles: list[str]) -> None:
        assert any(title.startswith("[") for title in titles)

    @pytest.mark.parametrize(
        ("kind", "is_of_kind"),
        [
            ("han", lambda c: "CJK UNIFIED" in unicodedata.name(c)),
            ("kana", lambda c: unicodedata.name(c).startswith(("HIRAGANA", "KATAKANA"))),
            ("hangul", lambda c: unicodedata.name(c).startswith("HANGUL")),
            ("accented latin", lambda c: unicodedata.name(c).startswith("LATIN") and c > "\x7f"),
            ("beyond the basic plane", lambda c: ord(c) > 0xFFFF),
        ],
    )
    def test_holds_letters_of_the_kind(
        self, titles: list[str], kind: str, is_of_kind: Callable[[str], bool]
    ) -> None:
        assert any(is_of_kind(char) for title in titles for char in title), kind

    @pytest.mark.parametrize("language", ["en", "zh", "ja", "de", "fr", "es", "ko"])
    def test_the_language_is_served(self, rows: list[Row], language: str) -> None:
        assert any(language in row["languages"] for row in rows)
