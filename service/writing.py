"""An answer while the model writes it: markers are read back out, and each ad is priced.

Knows nothing of where the chunks come from or where the parts go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from models.contract.markers import FaultKind, MarkerReader, Segment, SegmentKind
from models.engine.interface import Chunk
from service.answer import AdPart, FinishReason, TextPart
from service.auction.charge import Charge, first_price
from service.auction.eligibility import EligibleAd


@dataclass(frozen=True, slots=True)
class Billing:
    """The terms of this answer's charges. pctr: as of `first_price`. token: signs the click on an
    ad at a position (from 1)."""

    currency: str
    expires_at: datetime
    pctr: float | None
    token: Callable[[Charge, int], str | None]


class Writing:
    """Chunks go in, parts that may be shown come out; faulty insertions stay text, unpriced."""

    def __init__(self, offers: Sequence[EligibleAd], max_ads: int, billing: Billing) -> None:
        self.marked = [offer.ad.marked for offer in offers]
        self.reader = MarkerReader(self.marked, max_ads)
        self.parts: list[TextPart | AdPart] = []
        self.last: Chunk | None = None
        self.first_at: float | None = None
        self.token_count = 0
        self.finish_reason: FinishReason = "abort"
        self._offers = {offer.ad.ad_id: offer for offer in offers}
        self._billing = billing
        self._ads_count = 0
        self._raw: list[str] = []

    def take(self, chunk: Chunk) -> list[TextPart | AdPart]:
        """The parts that `chunk` completes. Text is held back while it may become a marker."""
        if self.first_at is None and chunk.token_count:
            self.first_at = monotonic()
        self.token_count += chunk.token_count
        if chunk.finish_reason is not None:
            self.last, self.finish_reason = chunk, chunk.finish_reason
        self._raw.append(chunk.text)
        return self._show(self.reader.feed(chunk.text))

    def close(self) -> list[TextPart | AdPart]:
        """The parts that were held back; half a marker is dropped and reported as a fault."""
        return self._show(self.reader.close())

    @property
    def answer(self) -> str:
        """What was written so far, without half a marker at the end."""
        raw = "".join(self._raw)
        cut = [fault.start for fault in self.reader.faults if fault.kind is FaultKind.TRUNCATED]
        return raw[: cut[0]] if cut else raw

    def _show(self, segments: Sequence[Segment]) -> list[TextPart | AdPart]:
        shown = [self._part(segment) for segment in segments if segment.text]
        self.parts += shown
        return shown

    def _part(self, segment: Segment) -> TextPart | AdPart:
        if segment.kind is SegmentKind.TEXT or segment.ad_id is None:
            return TextPart(segment.text)
        offer, billing = self._offers[segment.ad_id], self._billing
        self._ads_count += 1
        charge = first_price(offer, billing.currency, billing.expires_at, billing.pctr)
        return AdPart(offer, segment, charge, billing.token(charge, self._ads_count))
