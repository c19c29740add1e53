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


def neutralise(text: str) -> str:
    """Return `text` in NFC, without control characters, markers or chat-template tokens.

    Line breaks of all kinds become "\\n"; tabs stay; white space around goes. Ordinary text comes
    back as it is, `neutralise(neutralise(x)) == neutralise(x)`, and afterwards neither `@[` nor
    TEMPLATE_TOKEN occurs.
    """
    # Controls go first: one of them might part a token, or a letter from its accent.
    text = _CONTROL.sub("", _LINE_BREAK.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    return TEMPLATE_TOKEN.sub(r"\g<0> ", text.replace("@[", "@ [")).strip()


def neutralise_line(text: str) -> str:
    """Return `neutralise(text)` as one line: line breaks become spaces."""
    return neutralise(text).replace("\n", " ")
