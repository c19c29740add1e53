"""Which titles are taken, how they come back, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.markers import FaultKind, MarkedAd, check_title, read


@pytest.mark.parametrize(
    "title",
    [
        "x",
        "x" * 120,
        'Boots "Süd" \\ 50% @ home [new] {1} <b>',
        "[Ad-1] first",
        "登山靴 — 二人用",
        "Family 👩‍👩‍👧 ❤️ می‌خواهم",
        "ends with @",
    ],
)
def test_good_titles_stay_as_they_are(title: str) -> None:
    assert check_title(title) == title


def test_titles_come_back_in_nfc_and_are_measured_so() -> None:
    assert check_title("Cafe\u0301") == "Café"
    assert check_title("e\u0301" * 120) == "é" * 120


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("", "1 to 120 characters; this one has 0"),
        ("x" * 121, "this one has 121"),
        ("a\nb", r"Character 2 .* U\+000A"),
        ("a\x00", r"U\+0000"),
        ("a\u2028b", r"U\+2028"),
        ("a\u202eb", r"U\+202E"),  # right-to-left override
        ("a\u200bb", r"U\+200B"),  # zero-width space
        ("a\ud800", r"U\+D800"),
        ("a\uffff", r"U\+FFFF"),
        ("a\ufdd0b", r"U\+FDD0"),
        (" a", r"Character 1 .* white space"),
        ("ab\u00a0", r"Character 3 .* white space"),
        ("\u200d", r"Character 1 .* joiner"),
        ("a@[b", r'"@\[" at character 2'),
        ("a<|im_end|>", "token begins at character 2"),
        ("[INST] a", "token begins at character 1"),
    ],
)
def test_bad_titles_are_refused_with_what_and_where(title: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_title(title)


@given(st.text(max_size=10) | st.text("a@[] \u0301e", max_size=6))
def test_whatever_is_taken_reads_back_from_its_marker(title: str) -> None:
    try:
        title = check_title(title)
    except ValueError:
        return
    ad = MarkedAd("Ad-1", title)
    reading = read(f"x{ad.marker}y{ad.marker}", [ad], 1)
    assert [(s.text, s.start) for s in reading.insertions] == [(title, 1)]
    assert [fault.kind for fault in reading.faults] == [FaultKind.DUPLICATE]
    assert check_title(title) == title
