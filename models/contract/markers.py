"""The marker language: how an ad stands in an answer, `@Title@[Ad-ID]`, and how it is read out.

    marker   "@" title "@[" ad_id "]", of an eligible ad, character for character
    plain @  one that begins no marker, stands after one of `A-Z a-z 0-9 . _ % + -` and before an
             ASCII letter or digit, as in an e-mail address; in an answer that may have no ad, any
             that is not followed by "["
    fault    any other "@"

The leftmost marker wins; anything may stand before one. `grammar.py` writes the same language as
EBNF. There is one reader, for whole texts and for streams: it trusts nothing, also not that a
grammar was enforced, and shows no part of what may yet become a marker.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from models.contract.reading import Fault, FaultKind, Reading, Segment, SegmentKind
from models.contract.titles import check_title

__all__ = [
    "AD_ID_PATTERN",
    "Fault",
    "FaultKind",
    "MarkedAd",
    "MarkerReader",
    "Reading",
    "Segment",
    "SegmentKind",
    "ambiguous_titles",
    "check_title",
    "read",
]

AD_ID_PATTERN: Final = r"[A-Za-z0-9._:-]{1,64}"

_BEFORE_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-")
_AFTER_PLAIN = _BEFORE_PLAIN - frozenset("._%+-")
_TAIL = re.compile(r"@\[([A-Za-z0-9._:-]{0,64})(\]?)")
_HEAD_TO_TAIL_CHARACTERS = 200
"""How far from its head, on the same line, the tail of a faulty marker is looked for."""


@dataclass(frozen=True, slots=True)
class MarkedAd:
    """An ad that may stand in an answer. Both fields are valid (AD_ID_PATTERN, check_title)."""

    ad_id: str
    title: str
    marker: str = field(init=False, compare=False, repr=False)
    """How it stands in an answer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "marker", f"@{self.title}@[{self.ad_id}]")


def ambiguous_titles(ads: Sequence[MarkedAd]) -> set[str]:
    """Return the ids of those `ads` whose markers might be read as the end of another's.

    After `a@b`, is `@[Ad-1] c@[Ad-2]` the marker of an ad titled `[Ad-1] c`, or does `@b@[Ad-1]`
    end there? Such ads must not be eligible; the reader and the grammar agree on all others.
    """
    suspects = [ad for ad in ads if ad.title.startswith("[")]
    if not suspects:
        return set()
    ids = {ad.ad_id for ad in ads}
    tails = ((ad.ad_id, _TAIL.match("@" + ad.title)) for ad in suspects)
    return {
        ad_id for ad_id, tail in tails if tail and tail[2] and tail[1] != ad_id and tail[1] in ids
    }


def read(text: str, ads: Sequence[MarkedAd], max_ads: int) -> Reading:
    """Read a whole answer; adjacent texts are one segment."""
    reader = MarkerReader(ads, max_ads)
    segments = _merged(reader.feed(text) + reader.close())
    answer = text[: segments[-1].end] if segments else ""
    return Reading(answer, tuple(segments), tuple(reader.faults))


class MarkerReader:
    """Reads the markers out of an answer as it is written. `faults`: found so far, in order.

    The text of a fault is shown as it was written, but a duplicate and one over the limit as the
    bare title, so that the sentence around still reads well.

    ads: the eligible ones; ids are unique and no title is ambiguous (`ambiguous_titles`).
    max_ads: how many may be inserted, 0 or more.
    """

    def __init__(self, ads: Sequence[MarkedAd], max_ads: int) -> None:
        self.faults: list[Fault] = []
        self._ads = {ad.marker: ad for ad in ads}
        # Sorted, and no marker begins another: what begins like a text stands next to it.
        self._markers = sorted(self._ads)
        self._longest = max(map(len, self._markers), default=1)
        self._titles = {ad.ad_id: ad.title for ad in ads}
        self._max_ads = max_ads
        self._is_without_ads = not ads or max_ads == 0
        self._inserted: set[str] = set()
        # The text not yet done with. Indexes point into it; `_offset` is where it begins.
        self._text = ""
        self._offset = 0
        self._shown = 0
        self._next = 0
        self._head: int | None = None

    def feed(self, text: str) -> list[Segment]:
        """Return the parts that are certain now that `text` follows."""
        self._text += text
        segments = self._scan(is_end=False)
        self._forget()
        return segments

    def close(self) -> list[Segment]:
        """Return the parts that were held back: nothing follows."""
        segments = self._scan(is_end=True)
        self._settle_head()
        return segments

    def _scan(self, is_end: bool) -> list[Segment]:
        segments: list[Segment] = []
        while (at := self._text.find("@", self._next)) >= 0:
            window = self._text[at : at + self._longest]
            ad = self._ad_at(window)
            if ad is not None:
                self._show_text(at, segments)
                self._show_ad(ad, at, segments)
                continue
            is_growing = at + len(window) == len(self._text) and self._may_grow(window)
            if not is_end and (is_growing or self._is_undecided(at)):
                self._next = at
                self._show_text(at, segments)
                return segments
            if is_growing and not all(map(self._is_plain, _ats(self._text, at))):
                self._drop(at, segments)
                return segments
            self._next = at + 1 if self._is_plain(at) else self._fault_at(at)
        self._next = len(self._text)
        self._show_text(self._next, segments)
        return segments

    def _ad_at(self, window: str) -> MarkedAd | None:
        """The ad whose marker `window` begins with."""
        index = bisect_right(self._markers, window)
        if index and window.startswith(marker := self._markers[index - 1]):
            return self._ads[marker]
        return None

    def _may_grow(self, window: str) -> bool:
        """Whether more text could make a marker of `window`; always of a lone `@`."""
        index = bisect_left(self._markers, window)
        is_begun = index < len(self._markers) and self._markers[index].startswith(window)
        return is_begun or window == "@"

    def _is_undecided(self, at: int) -> bool:
        """Whether the tail at `at`, if it is one, may go on."""
        tail = _TAIL.match(self._text, at)
        return tail is not None and not tail[2] and tail.end() == len(self._text)

    def _is_plain(self, at: int) -> bool:
        """Whether the `@` at `at`, which begins no marker, is plain text."""
        if self._is_without_ads:
            return self._text[at + 1 : at + 2] != "["
        around = self._text[at - 1 : at + 2] if at else ""
        return len(around) == 3 and around[0] in _BEFORE_PLAIN and around[2] in _AFTER_PLAIN

    def _show_text(self, end: int, segments: list[Segment]) -> None:
        if end > self._shown:
            text = self._text[self._shown : end]
            segments.append(self._segment(SegmentKind.TEXT, text, self._shown, end))
            self._shown = end

    def _show_ad(self, ad: MarkedAd, start: int, segments: list[Segment]) -> None:
        self._settle_head()
        end = start + len(ad.marker)
        if ad.ad_id in self._inserted:
            self._fault(FaultKind.DUPLICATE, start, end, ad.ad_id)
            segments.append(self._segment(SegmentKind.TEXT, ad.title, start, end))
        elif len(self._inserted) >= self._max_ads:
            self._fault(FaultKind.OVER_LIMIT, start, end, ad.ad_id)
            segments.append(self._segment(SegmentKind.TEXT, ad.title, start, end))
        else:
            self._inserted.add(ad.ad_id)
            segments.append(self._segment(SegmentKind.AD, ad.title, start, end, ad.ad_id))
        self._shown = self._next = end

    def _fault_at(self, at: int) -> int:
        """Note what is wrong with the `@` at `at`; return where to read on."""
        tail = _TAIL.match(self._text, at)
        if tail is None:
            self._settle_head()
            self._head = at
            return at + 1
        title = None
        if self._head is not None and self._is_near(self._head, at):
            at, title, self._head = self._head, self._text[self._head + 1 : at], None
        self._settle_head()
        ad_id = tail[1] if tail[1] and tail[2] else None
        self._fault(self._kind_of(ad_id, title), at, tail.end(), ad_id)
        return tail.end()

    def _kind_of(self, ad_id: str | None, title: str | None) -> FaultKind:
        if ad_id is None:
            return FaultKind.BROKEN_MARKER
        if ad_id not in self._titles:
            return FaultKind.UNKNOWN_ID
        is_of_another = title in self._titles.values()
        return FaultKind.MISMATCH if is_of_another else FaultKind.ALTERED_TITLE

    def _is_near(self, head: int, at: int) -> bool:
        return at - head <= _HEAD_TO_TAIL_CHARACTERS and "\n" not in self._text[head:at]

    def _settle_head(self) -> None:
        """A head that found no tail is a fault by itself."""
        if self._head is not None:
            self._fault(FaultKind.BROKEN_MARKER, self._head, self._head + 1)
            self._head = None

    def _drop(self, at: int, segments: list[Segment]) -> None:
        """End the answer at `at`, where half a marker begins."""
        self._show_text(at, segments)
        self._settle_head()
        self._fault(FaultKind.TRUNCATED, at, len(self._text))

    def _forget(self) -> None:
        """Keep of the text what is held back, the character before it, and an open head."""
        if self._head is not None and self._shown - self._head > _HEAD_TO_TAIL_CHARACTERS:
            self._settle_head()
        done = max(0, self._shown - 1)
        if self._head is not None:
            done = min(done, self._head)
            self._head -= done
        self._text = self._text[done:]
        self._offset += done
        self._shown -= done
        self._next -= done

    def _fault(self, kind: FaultKind, start: int, end: int, ad_id: str | None = None) -> None:
        self.faults.append(Fault(kind, self._offset + start, self._offset + end, ad_id))

    def _segment(
        self, kind: SegmentKind, text: str, start: int, end: int, ad_id: str | None = None
    ) -> Segment:
        return Segment(kind, text, self._offset + start, self._offset + end, ad_id)


def _ats(text: str, start: int) -> list[int]:
    return [index for index in range(start, len(text)) if text[index] == "@"]


def _merged(segments: Iterable[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for kind, group in groupby(segments, key=lambda segment: segment.kind):
        run = list(group)
        if kind is SegmentKind.TEXT:
            text = "".join(segment.text for segment in run)
            run = [Segment(kind, text, run[0].start, run[-1].end)]
        merged += run
    return merged
