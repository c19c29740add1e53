"""A server's events, read into the chunks of an answer."""

import pytest

from models.engine.completion_stream import Answer


def said(*deltas: str) -> str:
    answer = Answer()
    events = [{"choices": [{"delta": {"content": delta}}]} for delta in deltas]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    chunks = [answer.add(event) for event in (*events, end)]
    return "".join(chunk.text for chunk in chunks if chunk) + answer.last().text


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        (("Hi \ud83d", "\ude00!"), "Hi \U0001f600!"),
        (("Hi \ud83d\ude00!",), "Hi \U0001f600!"),
        (("Hi \ud83d", "there"), "Hi \ufffdthere"),
        (("Hi \ude00",), "Hi \ufffd"),
        (("Hi \ud83d",), "Hi "),
        (("帐篷 ", "👩‍👩‍👧"), "帐篷 👩‍👩‍👧"),
    ],
)
def test_halves_of_characters_make_a_whole_or_are_replaced(
    deltas: tuple[str, ...], text: str
) -> None:
    assert said(*deltas) == text
