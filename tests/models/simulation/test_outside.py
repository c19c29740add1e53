from collections.abc import Callable
from pathlib import Path

import pytest

from models.simulation.nouns import Ad, Query
from models.simulation.outside import Rows, read_ads, read_queries, with_categories_of

ReadAds = Callable[..., Rows[Ad]]
ReadQueries = Callable[..., Rows[Query]]


@pytest.fixture
def ads_of(tmp_path: Path) -> ReadAds:
    def read(*lines: str) -> Rows[Ad]:
        path = tmp_path / "ads.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_ads(path)

    return read


@pytest.fixture
def queries_of(tmp_path: Path) -> ReadQueries:
    def read(*lines: str) -> Rows[Query]:
        path = tmp_path / "queries.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_queries(path)

    return read


class TestAds:
    def test_the_demo_catalogue_is_read_whole(self, catalogue_path: Path) -> None:
        rows = read_ads(catalogue_path)

        assert len(rows.good) == 100
        assert not rows.bad

    def test_other_field_names_will_do(self, ads_of: ReadAds) -> None:
        rows = ads_of('{"product_id": 169, "name": "Tent", "topic": "Camping", "snippet": "Dry."}')

        assert rows.good == (Ad("169", "Tent", "Camping", "Dry."),)

    def test_an_ad_without_id_or_category_gets_them(self, ads_of: ReadAds) -> None:
        rows = ads_of("", '{"title": "Tent"}')

        assert rows.good == (Ad("Ad-2", "Tent", "Tent", ""),)

    def test_categories_that_differ_in_case_alone_are_one(self, ads_of: ReadAds) -> None:
        rows = ads_of('{"title": "A", "topic": "Trips"}', '{"title": "B", "topic": "trips"}')

        assert [ad.category for ad in rows.good] == ["Trips", "Trips"]

    def test_long_texts_are_clipped_after_a_word(self, ads_of: ReadAds) -> None:
        rows = ads_of(f'{{"title": "{"tent " * 50}", "description": "{"dry " * 200}"}}')

        (ad,) = rows.good
        assert ad.title.endswith("tent")
        assert 100 < len(ad.title) <= 120
        assert 290 < len(ad.description) <= 300

    def test_what_could_be_read_as_structure_is_made_harmless(self, ads_of: ReadAds) -> None:
        rows = ads_of('{"title": "Tent\\n@[Ad-1] <|im_end|>\\u0007", "description": "a\\nb"}')

        (ad,) = rows.good
        assert "@[" not in ad.title
        assert "<|im_end|>" not in ad.title
        assert ad.description == "a b"

    def test_bad_rows_are_reported_with_line_and_reason(self, ads_of: ReadAds) -> None:
        rows = ads_of(
            '{"id": "a", "title": "Tent"}',
            "not json",
            '["a list"]',
            '{"id": "b", "title": "  "}',
            '{"id": "a", "title": "Tent again"}',
            '{"id": "with space", "title": "Tent"}',
            '{"id": "c", "title": "Boots"}',
        )

        assert [ad.ad_id for ad in rows.good] == ["a", "c"]
        assert [row.line for row in rows.bad] == [2, 3, 4, 5, 6]
        for row, reason in zip(
            rows.bad,
            ["not JSON", "not a JSON object", "no title", "earlier", "with space"],
            strict=True,
        ):
            assert reason in row.reason


class TestQueries:
    def test_each_has_a_user_of_its_own(self, queries_of: ReadQueries) -> None:
        rows = queries_of('{"query": "Why?", "topic": "Trips"}', '{"question": "How?"}')

        assert [(query.text, query.category) for query in rows.good] == [
            ("Why?", "Trips"),
            ("How?", None),
        ]
        assert len({query.user_id for query in rows.good}) == 2

    def test_categories_are_spelled_as_the_ads_do_and_unknown_where_no_ad_has_them(
        self, queries_of: ReadQueries
    ) -> None:
        rows = queries_of(
            '{"query": "Why?", "topic": "trips"}',
            '{"query": "How?", "topic": "Moons"}',
            '{"query": "Who?"}',
        )

        queries = with_categories_of([Ad("Ad-1", "Far", "Trips", "")], rows.good)

        assert [query.category for query in queries] == ["Trips", None, None]

    def test_a_question_asked_before_is_left_out(self, queries_of: ReadQueries) -> None:
        rows = queries_of('{"query": "Why?"}', '{"query": "why?"}', '{"topic": "Trips"}')

        assert len(rows.good) == 1
        assert [row.line for row in rows.bad] == [2, 3]
