"""What a read answer is made of: segments to show, and faults to count."""

from dataclasses import dataclass
from enum import StrEnum


class SegmentKind(StrEnum):
    """What a part of an answer is."""

    TEXT = "text"
    AD = "ad"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an answer. `text` is what to show: of an ad, its title.

    start, end: characters of the raw answer. ad_id: of an ad; None of a text.
    """

    kind: SegmentKind
    text: str
    start: int
    end: int
    ad_id: str | None = None


class FaultKind(StrEnum):
    """What is wrong with a marker. Doubles as a metric label."""

    UNKNOWN_ID = "unknown_id"
    """Its id is of no eligible ad."""
    ALTERED_TITLE = "altered_title"
    """Its id is known, its title is not that ad's."""
    MISMATCH = "mismatch"
    """Its id is known, its title is another eligible ad's."""
    BROKEN_MARKER = "broken_marker"
    """An `@` that begins nothing, or a tail without a whole id."""
    DUPLICATE = "duplicate"
    """A valid marker of an ad that already stands in the answer."""
    OVER_LIMIT = "over_limit"
    """A valid marker beyond the number of ads allowed."""
    TRUNCATED = "truncated"
    """The answer ends inside a marker; what there is of it is dropped."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One intended marker gone wrong. start, end: characters of the raw answer.

    ad_id: as written, where a whole id was.
    """

    kind: FaultKind
    start: int
    end: int
    ad_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A whole answer, read. `answer`: the raw text without a truncated end."""

    answer: str
    segments: tuple[Segment, ...]
    faults: tuple[Fault, ...]

    @property
    def insertions(self) -> tuple[Segment, ...]:
        """The ads in the answer, in their order."""
        return tuple(segment for segment in self.segments if segment.kind is SegmentKind.AD)
