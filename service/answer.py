"""The nouns of one request: what is asked, what happens on the way, and the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Literal

from models.contract.markers import Fault, Segment
from models.contract.prompt import Profile, Turn
from models.engine.interface import Chunk, ModelIdentity, Usage
from service.auction.charge import Charge
from service.auction.eligibility import Bid, EligibleAd, Excluded, Exclusion
from service.metrics import STAGES

DISCLOSURE = "Sponsored"
"""Stands beside every ad, one by one, as the FTC's guide on native advertising asks."""

FinishReason = Literal["stop", "length", "deadline", "abort", "error"]
"""`abort`: the client went away. `error`: the engine failed; the caller gets a problem instead."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A validated request. `received_at`, `deadline_at`: seconds on `time.monotonic()`'s clock.

    is_streamed: whether parts are shown while they are written. caller: the API key's name.
    is_probe: only asks what would be shown; it leaves nothing behind and costs nobody anything.
    """

    response_id: str
    query: str
    bids: tuple[Bid, ...]
    conversation: tuple[Turn, ...]
    profile: Profile | None
    user_id: str | None
    max_ads: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int | None
    received_at: float
    deadline_at: float
    now: datetime
    is_streamed: bool = True
    caller: str = "anonymous"
    is_probe: bool = False
    trace_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offers:
    """The candidates after eligibility.

    is_unavailable: the ad store was away. is_held_out: the user is one of those who get no ads,
    for comparison.
    """

    eligible: tuple[EligibleAd, ...]
    excluded: tuple[Excluded, ...]
    is_unavailable: bool = False
    is_held_out: bool = False

    def keep(self, kept: Sequence[EligibleAd]) -> "Offers":
        """These offers with only `kept` before the model; the others had no room."""
        if len(kept) == len(self.eligible):
            return replace(self, eligible=tuple(kept))
        ids = {offer.ad.ad_id for offer in kept}
        dropped = tuple(
            Excluded(offer.ad.ad_id, Exclusion.NO_ROOM)
            for offer in self.eligible
            if offer.ad.ad_id not in ids
        )
        return replace(self, eligible=tuple(kept), excluded=self.excluded + dropped)


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text that the user may see now."""

    text: str


@dataclass(frozen=True, slots=True)
class AdPart:
    """An ad that stands in the answer, and what an event on it will cost.

    token: what a click brings back; None where a click costs nothing.
    """

    offer: EligibleAd
    segment: Segment
    charge: Charge
    token: str | None = None


class Stages:
    """Seconds spent in each stage of one request, on the monotonic clock.

    Everything between the engine taking the request and its last token is `queue`, `prefill` or
    `decode`, so that stages and the little that lies between them add up to the total. `ttft_s`
    counts from the request's arrival.
    """

    def __init__(self, received_at: float) -> None:
        self.received_at = received_at
        self.ttft_s: float | None = None
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def timed(self, stage: str) -> "_Timed":
        """A block whose time is added to `stage`."""
        return _Timed(self.seconds, stage)

    def add_engine(self, submitted_at: float, first_at: float | None, last: Chunk | None) -> None:
        """Divide the time since `submitted_at` among the engine's stages.

        first_at: when the first token arrived here. last: the final chunk, with the engine's own
        times where it knows them; without them waiting counts as prefill.
        """
        ended_at = monotonic()
        scheduled_at = (last.scheduled_at if last else None) or submitted_at
        first_token_at = (last.first_token_at if last else None) or first_at or ended_at
        self.ttft_s = None if first_at is None else first_token_at - self.received_at
        self.seconds["queue"] = max(0.0, scheduled_at - submitted_at)
        self.seconds["prefill"] = max(0.0, first_token_at - scheduled_at)
        reading = self.seconds["insertions"]
        self.seconds["decode"] = max(0.0, ended_at - first_token_at - reading)

    @property
    def total_s(self) -> float:
        """Seconds since the request was received."""
        return monotonic() - self.received_at


class _Timed:
    """Entered for every token, where contextlib's generators would cost as much as the reading."""

    __slots__ = ("_begun", "_seconds", "_stage")

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds = seconds
        self._stage = stage

    def __enter__(self) -> None:
        self._begun = monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += monotonic() - self._begun


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer with its account; `text` holds the markers as the model wrote them."""

    response_id: str
    text: str
    parts: tuple[TextPart | AdPart, ...]
    offers: Offers
    faults: tuple[Fault, ...]
    model: ModelIdentity
    contract: str
    usage: Usage
    finish_reason: FinishReason
    stages: Stages
    trace_headers: Mapping[str, str]
    ads: tuple[AdPart, ...] = field(init=False)
    """Those of `parts`."""

    def __post_init__(self) -> None:
        ads = tuple([part for part in self.parts if isinstance(part, AdPart)])
        object.__setattr__(self, "ads", ads)
