"""Where an ad stands in an answer, as a reader meets it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.contract.reading import Reading, Segment, SegmentKind

_SENTENCE_END = re.compile(r"[.!?。！？]+[\"'”’)\]]*(?=\s)|\n")
_WORD = re.compile(r"\w+")
_AD_TALK = re.compile(
    r"\b(?:sponsor(?:s|ed|ing)?|advert(?:s|isers?|isements?|ising)?|ads?|promo(?:tions?|tional)?"
    r"|click (?:here|now|on|the link)|(?:buy|order|shop|sign up) (?:now|today)"
    r"|limited[- ]time|special offer|don't miss|bid(?:s|ding)?|candidate ads?)\b",
    re.IGNORECASE,
)
_FEWEST_WORDS_OF_A_SENTENCE = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """How one ad stands in an answer.

    sentence: the one it is in, without its own title. is_alone: nearly nothing else stands on its
    line. is_at_edge: no word of the answer comes before it, or none after it.
    """

    ad_id: str
    sentence: str
    is_alone: bool
    is_at_edge: bool


def placements(reading: Reading) -> list[Placement]:
    """One for each insertion, in order."""
    segments = reading.segments
    return [
        _placement(segment, segments[:index], segments[index + 1 :])
        for index, segment in enumerate(segments)
        if segment.kind is SegmentKind.AD
    ]


def ad_talk(reading: Reading) -> int:
    """How often the answer's own text talks like an ad, or of ads."""
    return sum(len(_AD_TALK.findall(text)) for text in _texts(reading))


def words(reading: Reading) -> int:
    """Words of the answer's own text, titles of ads not counted."""
    return sum(len(_WORD.findall(text)) for text in _texts(reading))


def _placement(ad: Segment, before: Sequence[Segment], after: Sequence[Segment]) -> Placement:
    opening = _shown(before)[_last_end(_masked(before)) :]
    closing = _shown(after)[: _first_end(_masked(after))]
    line = _shown(before).rpartition("\n")[2] + " " + _shown(after).partition("\n")[0]
    return Placement(
        ad_id=ad.ad_id or "",
        sentence=f"{opening.strip()} {closing.strip()}".strip(),
        is_alone=len(_WORD.findall(line)) < _FEWEST_WORDS_OF_A_SENTENCE,
        is_at_edge=not _WORD.search(_shown(before)) or not _WORD.search(_shown(after)),
    )


def _last_end(text: str) -> int:
    """Where the last whole sentence of `text` ends; 0 where none does."""
    return max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)


def _first_end(text: str) -> int:
    """Where the first sentence of `text` ends."""
    found = _SENTENCE_END.search(text)
    return found.end() if found else len(text)


def _masked(segments: Sequence[Segment]) -> str:
    """As `_shown`, with the titles of ads made unrecognisable: no sentence ends in one."""
    return "".join(
        "x" * len(part.text) if part.kind is SegmentKind.AD else part.text for part in segments
    )


def _shown(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _texts(reading: Reading) -> list[str]:
    return [part.text for part in reading.segments if part.kind is SegmentKind.TEXT]
