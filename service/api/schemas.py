"""What `POST /respond` takes and gives, as documented in its OpenAPI."""

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from service.auction.money import to_micros

AdId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", examples=["Ad-1001"])]

MAX_CANDIDATES = 200

_NO_NUMBER = "must be a decimal number"
_BID_RANGE = "must be over 0, at most 1000000, with at most 6 decimals"
_BID_TEXT = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")
_BID_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000},
        {"type": "string", "pattern": rf"^{_BID_TEXT.pattern}$"},
    ],
    "examples": [1.25],
}


def _bid_micros(value: Any) -> int:
    """A bid as micros. In one step, as a request brings hundreds of them."""
    try:
        return _exact_micros(value)
    except TypeError:  # of what cannot even be looked for in a cache: a list or an object
        raise PydanticCustomError("bid", _NO_NUMBER) from None


@lru_cache(maxsize=16_384, typed=True)
def _exact_micros(value: Any) -> int:
    """Many bids are the same few amounts. What is refused is not remembered: its text may be as
    long as a body."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("bid", _NO_NUMBER)
    if isinstance(value, str) and not _BID_TEXT.fullmatch(value):
        raise PydanticCustomError("bid", f"{_BID_RANGE}; as text, written like 12.5")
    try:
        micros = to_micros(Decimal(str(value)))
    except (InvalidOperation, ValueError) as wrong:
        raise PydanticCustomError("bid", _BID_RANGE) from wrong
    if micros <= 0:
        raise PydanticCustomError("bid", _BID_RANGE)
    return micros


Bid = Annotated[int, PlainValidator(_bid_micros), WithJsonSchema(_BID_SCHEMA)]
"""Amount per click in the deployment's currency; micros in Python."""


Seed = Annotated[
    int,
    Field(ge=0, lt=2**63),  # vLLM takes -1 for no seed
    # spelled out: pydantic would give the bound as a float, and so one too far
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),
]


class Incoming(BaseModel):
    """Strict: no coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CandidateBid(Incoming):
    ad_id: AdId
    bid: Bid = Field(description="Amount per click, in the deployment's currency")
    pctr: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Your estimate of the chance of a click, for all candidates or for none: then"
        " the model reads them in the order of bid × pctr instead of bid. It changes no price",
        examples=[0.08],
    )


class ConversationTurn(Incoming):
    role: Literal["user", "assistant"]
    content: str = Field(max_length=8_000)


class UserProfile(Incoming):
    info: str = Field("", max_length=2_000, examples=["Nurse, two children, lives in Lyon"])
    interests: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=list, max_length=50, examples=[["hiking", "baking"]]
    )


def _with_all_pctrs_or_none(candidates: list[CandidateBid]) -> list[CandidateBid]:
    lacking = [place for place, candidate in enumerate(candidates) if candidate.pctr is None]
    if lacking and len(lacking) < len(candidates):
        raise PydanticCustomError(
            "pctr",
            "pctr must be given for all candidates or for none: candidate {place} has none",
            {"place": lacking[0]},
        )
    return candidates


class RespondRequest(Incoming):
    """A user's question and the ads that may stand in its answer."""

    query: str = Field(min_length=1, max_length=8_000, examples=["What should I pack for a hike?"])
    candidates: Annotated[list[CandidateBid], AfterValidator(_with_all_pctrs_or_none)] = Field(
        default_factory=list,
        max_length=MAX_CANDIDATES,
        description="Ads with their bids; empty asks for an answer without ads",
    )
    conversation: list[ConversationTurn] = Field(
        default_factory=list, max_length=100, description="Earlier turns, oldest first"
    )
    user_profile: UserProfile | None = None
    user_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="A pseudonym, never a name"
    )
    max_ads: int | None = Field(None, ge=0, le=10, description="The most ads in the answer")
    deadline_ms: int | None = Field(
        None, ge=1, le=600_000, description="The answer ends here, with what was written so far"
    )
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=10_000, description="0: off")
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    seed: Seed | None = None
    stream: bool = Field(False, description="Answer as server-sent events")
    probe: bool = Field(
        False, description="Only to see what would be shown: never recorded, counted or charged"
    )


# What is given out are plain dictionaries: nothing checks once more what was just made.


class Span(TypedDict):
    """Character offsets into `answer`: `answer[start:end]` is the marker."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class ChargeTerms(TypedDict):
    """What the event will cost the advertiser, whatever happens to the bid later."""

    event: Literal["click", "impression"]
    rule: Literal["first_price"]
    price_micros: Annotated[int, Field(gt=0, description="Millionths of the currency")]
    price: Annotated[str, Field(description="The same, as a decimal", examples=["1.25"])]
    currency: Annotated[str, Field(examples=["USD"])]
    expires_at: Annotated[str, Field(description="RFC 3339, UTC; later events are not charged")]


class ShownAd(TypedDict):
    ad_id: str
    title: str
    landing_url: str
    span: Span
    disclosure: Annotated[str, Field(examples=["Sponsored"])]
    charge: ChargeTerms
    click_url: Annotated[
        str | None,
        Field(
            description="Counts the click and leads to the landing page; null where clicks are free"
        ),
    ]


class TextSegment(TypedDict):
    type: Literal["text"]
    text: str


class AdSegment(TypedDict):
    type: Literal["ad"]
    text: Annotated[str, Field(description="The ad's title, to be shown with the disclosure")]
    ad_id: str
    disclosure: str


class ExcludedCandidate(TypedDict):
    ad_id: str
    reason: Annotated[str, Field(examples=["budget_exhausted"])]


class InsertionFault(TypedDict):
    """A marker that is not billed. `ad_id` where one can be told."""

    kind: Annotated[str, Field(examples=["duplicate"])]
    span: Span
    ad_id: str | None


class ModelUsed(TypedDict):
    name: str
    revision: str
    contract: Annotated[
        str, Field(description="Version and layout of the prompt", examples=["3-inline"])
    ]


class LatencyMs(TypedDict):
    """Milliseconds by stage. `ttft` and `total` count from when the request had arrived whole;
    `ttft` overlaps others, all the rest, with what lies between them, add up to `total`."""

    total: float
    eligible: float
    prompt: float
    queue: float
    ttft: float | None
    prefill: float
    decode: float
    insertions: float
    record: float


class TokenUsage(TypedDict):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


FinishReason = Literal["stop", "length", "deadline", "abort"]


class RespondResponse(TypedDict):
    """The answer, its ads and what they cost."""

    response_id: str
    answer: Annotated[str, Field(description="As the model wrote it, ads as `@Title@[Ad-ID]`")]
    segments: list[Annotated[TextSegment | AdSegment, Field(discriminator="type")]]
    markdown: Annotated[str, Field(description="The answer with ads as labelled links")]
    ads: list[ShownAd]
    ads_unavailable: Annotated[
        bool, Field(description="The ad store was away: an answer without ads")
    ]
    holdout: Annotated[
        bool, Field(description="The user is one of those who get no ads, for comparison")
    ]
    excluded: list[ExcludedCandidate]
    faults: list[InsertionFault]
    model: ModelUsed
    latency_ms: LatencyMs
    usage: TokenUsage
    finish_reason: FinishReason
