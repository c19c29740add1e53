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
        _placement(segment, _shown(segments[:index]), _shown(segments[index + 1 :]))
        for index, segment in enumerate(segments)
        if segment.kind is SegmentKind.AD
    ]


def ad_talk(reading: Reading) -> int:
    """How often the answer's own text talks like an ad, or of ads."""
    return sum(len(_AD_TALK.findall(text)) for text in _texts(reading))


def words(reading: Reading) -> int:
    """Words of the answer's own text, titles of ads not counted."""
    return sum(len(_WORD.findall(text)) for text in _texts(reading))


def _placement(ad: Segment, before: str, after: str) -> Placement:
    line = before.rpartition("\n")[2] + " " + after.partition("\n")[0]
    starts = [match.end() for match in _SENTENCE_END.finditer(before)]
    end = _SENTENCE_END.search(after)
    opening = before[starts[-1] if starts else 0 :]
    closing = after[: end.end() if end else len(after)]
    return Placement(
        ad_id=ad.ad_id or "",
        sentence=f"{opening.strip()} {closing.strip()}".strip(),
        is_alone=len(_WORD.findall(line)) < _FEWEST_WORDS_OF_A_SENTENCE,
        is_at_edge=not _WORD.search(before) or not _WORD.search(after),
    )


def _shown(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _texts(reading: Reading) -> list[str]:
    return [part.text for part in reading.segments if part.kind is SegmentKind.TEXT]
