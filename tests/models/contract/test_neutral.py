"""Text from outside means nothing to a chat template or a marker, and is otherwise untouched."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.contract.neutral import TEMPLATE_TOKEN, neutralise, neutralise_line

TOKENS = [
    *["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|eot_id|>"],
    *["<s>", "</s>", "<bos>", "<eos>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"],
    *["<start_of_turn>", "<end_of_turn>", "<think>", "</think>", "<tool_call>", "</tool_call>"],
    *["<｜User｜>", "<｜end▁of▁sentence｜>", "[SYSTEM_PROMPT]", "[TOOL_CALLS]"],
]
FRAGMENTS = st.sampled_from([*TOKENS, *"<>[]@|| \n\r\t\x00\u2028\u0301\u0338", "@[", "s>", "INST]"])
hostile = st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)


@pytest.mark.parametrize(
    "text",
    [
        "Mail first.last@mail.example.org or @handle, price 3 < 5 > 2",
        'def f(a: list[int]) -> dict[str, int]:\n\treturn {"x": a[0]}  # <div class="s">|</div>',
        "Vec<Option<&str>> | a <| b |> c [INSTALL] [x](y)",
        "你好，世界。どうも ありがとう；한국어",
        "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 می‌خواهم שלום\u200f!",
        "café, Å, ½, ﬁ",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert neutralise(text) == text


@pytest.mark.parametrize("token", TOKENS)
def test_a_template_token_is_parted_but_readable(token: str) -> None:
    said = neutralise(f"a{token}b")
    assert token not in said
    assert said.replace(" ", "") == f"a{token}b"


def test_markers_controls_and_line_breaks() -> None:
    assert neutralise("@Boots@[Ad-1]") == "@Boots@ [Ad-1]"
    assert neutralise("a\x00b\x1b[31m\x7f\x9f\ud800c") == "ab[31mc"
    assert neutralise("<\x00|im_end|>@\x01[") == "< |im_end|>@ ["
    assert neutralise(" a\r\nb\rc\u2028d\te\n") == "a\nb\nc\nd\te"
    assert neutralise("e\x00\u0301") == "é"
    assert neutralise_line("a\r\nb\nc") == "a b c"


@given(hostile)
@example("<|a[INST]b|>")
@example("<|a<|b|>")
@example("<\u0338s>")
def test_nothing_hostile_is_left(text: str) -> None:
    said = neutralise(text)
    assert not TEMPLATE_TOKEN.search(said)
    assert "@[" not in said
    assert all(unicodedata.category(c) not in {"Cc", "Cs"} or c in "\n\t" for c in said)
    assert unicodedata.is_normalized("NFC", said)
    assert said == said.strip()
    assert neutralise(said) == said


@given(hostile)
def test_a_line_is_one_and_as_harmless(text: str) -> None:
    line = neutralise_line(text)
    assert line.count("\n") == 0
    assert neutralise_line(line) == line


@pytest.mark.parametrize("marks", ["\u0301\u0327", "\u0f73", "\u3099"])
def test_of_a_long_run_of_marks_only_some_stay(marks: str) -> None:
    """Ordering all of them would hold up everybody else's requests."""
    left = neutralise(f"a{marks * 50_000}b")
    assert len(left) <= 32
    assert left[0] in "aá"
    assert left.endswith("b")
    assert neutralise(left) == left
