import json
from collections.abc import Callable

import pytest

from service.auction.ad import Ad
from service.auction.ad_rows import CSV_COLUMNS, RowFormat, read_rows

GOOD = {
    "ad_id": "Ad-1",
    "title": "Trailhead Boots",
    "category": "hiking boots",
    "landing_url": "https://boots.example/",
    "advertiser_id": "adv-1",
}


def ndjson(*rows: object) -> bytes:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows).encode()


def errors(body: bytes, row_format: RowFormat) -> list[tuple[int, str, str]]:
    rows = read_rows(body, row_format)
    return [(row.line, error.field, error.msg) for row in rows for error in row.errors]


class TestNdjson:
    def test_good_rows_and_blank_lines(self) -> None:
        body = ndjson(GOOD, "", {**GOOD, "ad_id": "Ad-2"}, "  ")
        rows = list(read_rows(body, RowFormat.NDJSON))
        assert [(row.line, row.ad and row.ad.ad_id) for row in rows] == [(1, "Ad-1"), (3, "Ad-2")]

    def test_every_bad_row_is_told_with_its_line_and_field(self) -> None:
        body = ndjson(
            GOOD,
            "{not json}",
            {**GOOD, "ad_id": "Ad-2", "title": "a@[b", "reserve": -1},
            "[]",
            {"ad_id": "Ad-3"},
        )
        found = errors(body, RowFormat.NDJSON)
        assert [(line, field) for line, field, _ in found] == [
            (2, ""),
            (3, "title"),
            (3, "reserve"),
            (4, ""),
            (5, "title"),
            (5, "category"),
            (5, "landing_url"),
            (5, "advertiser_id"),
        ]

    def test_an_id_that_repeats_is_told_with_its_first_line(self) -> None:
        body = ndjson({**GOOD, "title": "a@[b"}, GOOD, {**GOOD, "ad_id": "Ad-2"}, GOOD)
        assert errors(body, RowFormat.NDJSON)[1:] == [(4, "ad_id", "repeats the id of line 2")]

    def test_bytes_that_are_not_utf8_fail_their_own_row_only(self) -> None:
        body = ndjson(GOOD) + b'\n{"ad_id": "Ad-\xff"}\n' + ndjson({**GOOD, "ad_id": "Ad-3"})
        assert errors(body, RowFormat.NDJSON) == [(2, "", "must be UTF-8")]

    def test_a_byte_order_mark_and_line_separators_in_strings(self) -> None:
        row = json.dumps({**GOOD, "description": "a\u0085b"}, ensure_ascii=False)
        found = errors(b"\xef\xbb\xbf" + ndjson(GOOD, row), RowFormat.NDJSON)
        assert [(line, field) for line, field, _ in found] == [(2, "description")]

    def test_what_was_sent_is_not_echoed(self) -> None:
        found = errors(ndjson('{"secret": "word"'), RowFormat.NDJSON)
        assert "word" not in found[0][2]


class TestCsv:
    HEADER = ",".join(CSV_COLUMNS) + "\r\n"

    def test_all_columns(self, make_ad: Callable[..., Ad]) -> None:
        body = self.HEADER + (
            'Ad-1,"Boots, ""tough""",Sturdy,hiking boots,https://boots.example/,adv-1,paused,'
            "https://boots.example/a.png,en|pt-BR,wine|red wine,0.5,100,12.5\r\n"
        )
        (row,) = read_rows(body.encode(), RowFormat.CSV)
        assert row.ad == make_ad(
            title='Boots, "tough"',
            description="Sturdy",
            landing_url="https://boots.example/",
            advertiser_id="adv-1",
            status="paused",
            image_url="https://boots.example/a.png",
            languages=["en", "pt-BR"],
            blocked_topics=["wine", "red wine"],
            reserve="0.5",
            budget={"total": 100, "daily": 12.5},
        )

    def test_empty_cells_are_defaults_and_columns_may_stand_in_any_order(self) -> None:
        body = (
            "\ufefftitle,ad_id,status,category,landing_url,advertiser_id,budget_daily\n"
            "Boots,Ad-1,,boots,https://boots.example/,adv-1,\n"
        )
        (row,) = read_rows(body.encode(), RowFormat.CSV)
        assert row.ad is not None
        assert row.ad.status == "active"
        assert row.ad.budget.daily_micros is None

    def test_lines_are_counted_where_rows_begin(self) -> None:
        body = (
            "ad_id,title,category,landing_url,advertiser_id\n"
            'Ad-1,"Two\nlines",boots,https://boots.example/,adv-1\n'
            "\n"
            "Ad-2,Boots,boots,https://boots.example/\n"
            "Ad-3,Boots,boots,nowhere,adv-1\n"
        )
        found = errors(body.encode(), RowFormat.CSV)
        assert [(line, field) for line, field, _ in found] == [
            (2, "title"),
            (5, ""),
            (6, "landing_url"),
        ]
        assert found[1][2] == "has 4 cells where the header has 5"

    def test_a_wrong_header_is_told_at_once(self) -> None:
        found = errors(b"ad_id,titel,title,title\nAd-1,a,b,c\n", RowFormat.CSV)
        assert {(line, field) for line, field, _ in found} == {
            (1, "titel"),
            (1, "title"),
            (1, "category"),
            (1, "landing_url"),
            (1, "advertiser_id"),
        }

    @pytest.mark.parametrize("encoding", ["windows-1252", "utf-16"])
    def test_a_header_that_is_not_utf8_is_told_at_once(self, encoding: str) -> None:
        body = "ad_id,title,category,landing_url,advertiser_id,größe\nAd-1,a,b,c,d,e\n"
        assert errors(body.encode(encoding), RowFormat.CSV) == [(1, "", "must be UTF-8")]

    def test_wrong_quotes_fail_their_own_row_only(self) -> None:
        body = (
            "ad_id,title,category,landing_url,advertiser_id\n"
            'Ad-1,"Bo"ots,boots,https://boots.example/,adv-1\n'
            "Ad-2,Boots,boots,https://boots.example/,adv-1\n"
        )
        rows = list(read_rows(body.encode(), RowFormat.CSV))
        assert [(row.line, row.ad is None) for row in rows] == [(2, True), (3, False)]

    def test_lines_may_end_as_on_any_system(self) -> None:
        lines = ("ad_id,title,category,landing_url,advertiser_id", "Ad-1,a,b,https://c.example/,d")
        for ending in ("\n", "\r\n", "\r"):
            (row,) = read_rows(ending.join((*lines, "")).encode(), RowFormat.CSV)
            assert (row.line, row.errors) == (2, ())

    def test_an_empty_body_lacks_its_header(self) -> None:
        assert errors(b"", RowFormat.CSV)[0][:2] == (1, "ad_id")
