"""Text from outside, made harmless in a prompt.

A query or a profile is data. What could be read as structure there (a marker, or a token of a
chat template) gets a space in its middle, so that it still reads as written and means nothing.
Engines also tokenise such text with control tokens off; this is the second wall, and the only
one in front of a model server elsewhere.
"""

import re
import unicodedata
from typing import Final

# What follows the first character of a token that opens or closes a turn, a system message, a
# thought or a tool call. `<s>` and the like stand here in the one spelling that tokenizers know.
_AFTER_ANGLE = "|".join(
    (
        r"[|｜][^\s|｜<>]{1,64}[|｜]>",  # ChatML, Llama 3, Phi, SmolLM; DeepSeek with wide bars
        r"/?s>|(?:bos|eos|pad|unk)>",  # SentencePiece
        r"</?SYS>>",  # Llama 2
        r"(?:start|end)_of_turn>",  # Gemma
        r"/?(?:think|tool_call|tool_response|tools)>",  # Qwen, DeepSeek
    )
)
_AFTER_BRACKET = "|".join(
    (
        r"/?INST\]",  # Llama 2, Mistral
        r"/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|TOOL_CONTENT|THINK)\]",
    )
)

TEMPLATE_TOKEN: Final = re.compile(rf"<(?={_AFTER_ANGLE})|\[(?={_AFTER_BRACKET})")
"""Matches the first character of a chat-template token.

Only that one is consumed, so tokens nested in each other are all found in one pass.
"""

_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Surrogates go too: no tokenizer can encode them.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


_MARKS = "".join(
    char
    for char in map(chr, range(0x300, 0x20000))
    if unicodedata.combining(unicodedata.normalize("NFKD", char)[0])
)
_LONG_RUN = re.compile(f"([{_MARKS}]{{30}})[{_MARKS}]+")


def stream_safe(text: str) -> str:
    """Return `text` without what goes past the 30th of a run of combining marks.

    To be normalised afterwards, which takes a time that grows with the square of a run: a second
    for 20,000 marks. No writing needs so many (UAX #15, Stream-Safe Text Format).
    """
    return text if text.isascii() else _LONG_RUN.sub(r"\1", text)


def neutralise(text: str) -> str:
    """Return `text` in NFC, without control characters, markers or chat-template tokens.

    Of a run of combining marks 30 stay.

    Line breaks of all kinds become "\\n"; tabs stay; white space around goes. Ordinary text comes
    back as it is, `neutralise(neutralise(x)) == neutralise(x)`, and afterwards neither `@[` nor
    TEMPLATE_TOKEN occurs.
    """
    # Controls go first: one of them might part a token, or a letter from its accent.
    text = _CONTROL.sub("", _LINE_BREAK.sub("\n", text))
    text = stream_safe(unicodedata.normalize("NFC", stream_safe(text)))
    return TEMPLATE_TOKEN.sub(r"\g<0> ", text.replace("@[", "@ [")).strip()


def neutralise_line(text: str) -> str:
    """Return `neutralise(text)` as one line: line breaks become spaces."""
    return neutralise(text).replace("\n", " ")
