"""Which titles an ad may have, so that its marker is unmistakable and its text only data."""

import unicodedata
from typing import Final

from models.contract.neutral import TEMPLATE_TOKEN, stream_safe

MAX_TITLE_CHARACTERS: Final = 120

# Zero-width non-joiner and joiner: emoji, Persian and Indic scripts are written with them.
_JOINERS = "\u200c\u200d"
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def check_title(title: str) -> str:
    """Return `title` in NFC, fit to stand in a marker.

    1 to 120 characters, without white space or joiners at either end, without control, format,
    surrogate and non-characters (zero-width joiners inside are allowed), line breaks, `@[` and
    chat-template tokens. Raises ValueError that says what is wrong, where, and what is allowed.
    """
    title = unicodedata.normalize("NFC", stream_safe(title))
    if not 1 <= len(title) <= MAX_TITLE_CHARACTERS:
        raise ValueError(
            f"A title has 1 to {MAX_TITLE_CHARACTERS} characters; this one has {len(title)}"
        )
    for position, char in enumerate(title, start=1):
        if _is_refused(char):
            raise ValueError(
                f"Character {position} of the title is U+{ord(char):04X}: no control or invisible "
                "characters and no line breaks"
            )
    for position, char in ((1, title[0]), (len(title), title[-1])):
        if char.isspace() or char in _JOINERS:
            raise ValueError(
                f"Character {position} of the title is U+{ord(char):04X}: no white space and no "
                "joiner at its start or end"
            )
    if (at := title.find("@[")) >= 0:
        raise ValueError(f'"@[" at character {at + 1} of the title: it marks ads in answers')
    if token := TEMPLATE_TOKEN.search(title):
        raise ValueError(
            f"A chat-template token begins at character {token.start() + 1} of the title: "
            "none is allowed"
        )
    return title


def _is_refused(char: str) -> bool:
    if char in _JOINERS:
        return False
    is_noncharacter = ord(char) & 0xFFFE == 0xFFFE or "\ufdd0" <= char <= "\ufdef"
    return is_noncharacter or unicodedata.category(char) in _REFUSED_CATEGORIES
