"""Each thing an answer can hold, read: ads, e-mail addresses, every kind of fault."""

import time

import pytest

from models.contract.markers import (
    FaultKind,
    MarkedAd,
    MarkerReader,
    SegmentKind,
    ambiguous_titles,
    read,
)

BOOTS = MarkedAd("Ad-1", "Trail Boots")
TENT = MarkedAd("Ad-2", 'Zelt "Süd" @ 2\\3 [new] 帐篷 👩‍👧')
MAIL = MarkedAd("Ad-3", "example.org")
ADS = [BOOTS, TENT, MAIL]


def shown(text: str, max_ads: int = 3) -> list[str]:
    """Return what a reader of `text` sees; ads in angle brackets."""
    segments = read(text, ADS, max_ads).segments
    return [f"<{s.text}>" if s.kind is SegmentKind.AD else s.text for s in segments]


def faults(text: str, max_ads: int = 3) -> list[tuple[FaultKind, str, str | None]]:
    """Return the kind, the raw text and the id of each fault in `text`."""
    found = read(text, ADS, max_ads).faults
    return [(fault.kind, text[fault.start : fault.end], fault.ad_id) for fault in found]


class TestFaultless:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "No ads here, [really] ]not[.",
            "Write to first.last+tag@mail.example.org, or a@b@c, or 50%@x.",
            "An address@example.org like an ad's title.",
            "你好，世界 👩‍👧‍👦\n\ttabs and lines",
        ],
    )
    def test_plain_text_stays_as_it_is(self, text: str) -> None:
        reading = read(text, ADS, 3)
        assert reading.answer == "".join(s.text for s in reading.segments) == text
        assert not reading.insertions
        assert not reading.faults

    def test_ads_are_read_from_between_text(self) -> None:
        text = f"Take {BOOTS.marker}, word{TENT.marker}{MAIL.marker}x@y."
        assert shown(text) == [
            "Take ",
            "<Trail Boots>",
            ", word",
            f"<{TENT.title}>",
            "<example.org>",
            "x@y.",
        ]
        assert not faults(text)

    def test_spans_point_into_the_raw_answer(self) -> None:
        reading = read(f"😀 {TENT.marker}!", ADS, 3)
        (ad,) = reading.insertions
        assert reading.answer[ad.start : ad.end] == TENT.marker
        assert (ad.ad_id, ad.text) == ("Ad-2", TENT.title)

    def test_an_at_straight_after_a_marker_is_no_address(self) -> None:
        assert faults(f"{BOOTS.marker}@b") == [(FaultKind.BROKEN_MARKER, "@", None)]


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("A @Trail Boots@[Ad-9] b", (FaultKind.UNKNOWN_ID, "@Trail Boots@[Ad-9]", "Ad-9")),
            ("A @[Ad-9] b", (FaultKind.UNKNOWN_ID, "@[Ad-9]", "Ad-9")),
            ("A @trail boots@[Ad-1] b", (FaultKind.ALTERED_TITLE, "@trail boots@[Ad-1]", "Ad-1")),
            ("A @Trail  Boots@[Ad-1]", (FaultKind.ALTERED_TITLE, "@Trail  Boots@[Ad-1]", "Ad-1")),
            ("on@trail boots@[Ad-1]", (FaultKind.ALTERED_TITLE, "@[Ad-1]", "Ad-1")),
            ("A @example.org@[Ad-1] b", (FaultKind.MISMATCH, "@example.org@[Ad-1]", "Ad-1")),
            ("A @ b", (FaultKind.BROKEN_MARKER, "@", None)),
            ("A @Trail Boots.", (FaultKind.BROKEN_MARKER, "@", None)),
            ("A @Trail Boots [Ad-1]", (FaultKind.BROKEN_MARKER, "@", None)),
            ("A @Trail Boots@[Ad 1]", (FaultKind.BROKEN_MARKER, "@Trail Boots@[Ad", None)),
            ("A @Trail boots@[Ad-1", (FaultKind.BROKEN_MARKER, "@Trail boots@[Ad-1", None)),
            ("A @Trail Boots@[]", (FaultKind.BROKEN_MARKER, "@Trail Boots@[]", None)),
            ("ends a@ b", (FaultKind.BROKEN_MARKER, "@", None)),
        ],
    )
    def test_one_marker_gone_wrong_is_one_fault(
        self, text: str, fault: tuple[FaultKind, str, str | None]
    ) -> None:
        assert faults(text) == [fault]
        assert shown(text) == [text]

    def test_a_head_belongs_to_the_nearest_tail_on_its_line(self) -> None:
        assert [kind for kind, _, _ in faults("@one @Trail boots@[Ad-1]")] == [
            FaultKind.BROKEN_MARKER,
            FaultKind.ALTERED_TITLE,
        ]
        assert faults("@Trail\nBoots@[Ad-1]") == [
            (FaultKind.BROKEN_MARKER, "@", None),
            (FaultKind.ALTERED_TITLE, "@[Ad-1]", "Ad-1"),
        ]
        assert len(faults(f"@{'x' * 199}@[Ad-1]")) == 1
        assert len(faults(f"@{'x' * 200}@[Ad-1]")) == 2

    def test_a_repeated_ad_is_shown_as_its_bare_title(self) -> None:
        text = f"{BOOTS.marker} and {BOOTS.marker}!"
        assert shown(text) == ["<Trail Boots>", " and Trail Boots!"]
        assert faults(text) == [(FaultKind.DUPLICATE, BOOTS.marker, "Ad-1")]

    def test_an_ad_over_the_limit_is_shown_as_its_bare_title(self) -> None:
        text = f"{BOOTS.marker}, {MAIL.marker}"
        assert shown(text, max_ads=1) == ["<Trail Boots>", ", example.org"]
        assert faults(text, max_ads=1) == [(FaultKind.OVER_LIMIT, MAIL.marker, "Ad-3")]
        assert shown(text, max_ads=0) == ["Trail Boots, example.org"]

    def test_where_no_ad_may_stand_an_at_is_text_unless_it_begins_a_tail(self) -> None:
        code = "Write:\n@dataclass\nclass A: ...  # matrices: a @ b, @types/node@20, @"
        for ads, max_ads in (([], 3), ([BOOTS], 0)):
            reading = read(code, ads, max_ads)
            assert (reading.answer, reading.faults) == (code, ())
        assert [fault.kind for fault in read("see @[Ad-1]", [], 3).faults] == [FaultKind.UNKNOWN_ID]
        assert read("see @Trail", [BOOTS], 0).answer == "see @Trail"
        assert read("see @Trail", [BOOTS], 1).answer == "see "

    def test_a_repeated_ad_is_a_duplicate_even_over_the_limit(self) -> None:
        kinds = [kind for kind, _, _ in faults(BOOTS.marker * 2 + MAIL.marker, max_ads=1)]
        assert kinds == [FaultKind.DUPLICATE, FaultKind.OVER_LIMIT]

    @pytest.mark.parametrize("length", range(1, len(TENT.marker)))
    def test_half_a_marker_at_the_end_is_dropped(self, length: int) -> None:
        text = "Take " + TENT.marker[:length]
        assert read(text, ADS, 3).answer == "Take "
        assert shown(text) == ["Take "]
        assert faults(text) == [(FaultKind.TRUNCATED, TENT.marker[:length], None)]

    def test_an_end_that_may_be_an_address_stays(self) -> None:
        assert shown("Write to me@exam") == ["Write to me@exam"]
        assert shown("Write to me@example.org@[Ad") == ["Write to me"]
        assert shown("Write to me@") == ["Write to me"]

    def test_nothing_is_a_marker_without_ads(self) -> None:
        assert [fault.kind for fault in read(BOOTS.marker, [], 3).faults] == [FaultKind.UNKNOWN_ID]


class TestStreaming:
    def test_text_is_shown_at_once_and_markers_whole(self) -> None:
        reader = MarkerReader(ADS, 3)
        steps = ["Take a@b.c ", "now: @Tra", "il Boots@[Ad", "-1", "] or @Tra", "m."]
        emitted = [[s.text for s in reader.feed(step)] for step in steps]
        assert emitted == [
            ["Take a@b.c "],
            ["now: "],
            [],
            [],
            ["Trail Boots", " or "],
            ["@Tram."],
        ]
        assert reader.close() == []
        assert [fault.kind for fault in reader.faults] == [FaultKind.BROKEN_MARKER]

    def test_hostile_text_takes_linear_time(self) -> None:
        many = [MarkedAd(f"Ad-{n}", f"{'a@' * 30}{n}") for n in range(100)]
        for unit in ("@", "@a", "a@", "@[", "@a@[Ad-1", "x@[Ad-1]", many[0].marker, "@\n"):
            text = unit * (100_000 // len(unit))
            start = time.process_time()
            reading = read(text, many, 3)
            assert time.process_time() - start < 10
            assert reading.faults or unit == "a@"


class TestAmbiguousTitles:
    def test_a_title_beginning_with_another_ads_id_in_brackets(self) -> None:
        ads = [
            MarkedAd("1", "[2] x"),
            MarkedAd("2", "two"),
            MarkedAd("3", "[3] own id"),
            MarkedAd("4", "[9] id of none"),
            MarkedAd("5", "x [2]"),
            MarkedAd("6", "[2"),
        ]
        assert ambiguous_titles(ads) == {"1"}
