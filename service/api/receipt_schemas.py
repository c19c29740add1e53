"""Receipts as documented in the OpenAPI; `service/receipt.py` makes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.api.schemas import Incoming

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Reason = Annotated[str, Field(examples=["budget_exhausted"])]


class ReceiptCandidate(BaseModel):
    ad_id: str
    bid_micros: int
    place: int | None = Field(None, description="In the prompt, from 1; absent with `excluded`")
    excluded: Reason | None = Field(
        None,
        description="Why it was not put before the model. `ads_unavailable`: the ad store was"
        " away; `not_considered`: this answer was to have no ads",
    )


class ReceiptCharge(BaseModel):
    event: Literal["click", "impression"]
    rule: Literal["first_price"]
    price_micros: int
    currency: str
    expires_at: str = Field(description="ISO 8601, UTC; later events are free")


class ReceiptInsertion(BaseModel):
    ad_id: str
    advertiser_id: str
    position: int = Field(ge=1, description="Among the answer's ads")
    start: int = Field(ge=0, description="Characters into the answer")
    end: int
    landing_url: str
    bid_micros: int
    charge: ReceiptCharge


class ReceiptFault(BaseModel):
    kind: str
    start: int
    end: int
    ad_id: str | None


class ReceiptModel(BaseModel):
    name: str
    revision: str


class ReceiptSampling(BaseModel):
    temperature: str = Field(examples=["0.7"])
    top_p: str
    top_k: int
    max_tokens: int
    seed: str | None


class ReceiptText(BaseModel):
    """What was said itself, where the deployment keeps it (`receipts.with_text`)."""

    query: str
    conversation: list[dict[str, str]]
    profile: dict[str, Any] | None
    answer: str


class Receipt(BaseModel):
    """Why these ads stood in this answer, and what their clicks cost. Hashes are HMAC-SHA256 under
    the deployment's secret; `POST /receipts/verify` compares them with a text."""

    version: Literal[1]
    response_id: str
    time: str = Field(description="ISO 8601, UTC, when the request came")
    caller: str = Field(description="The name of the API key")
    user: str | None = Field(description="A pseudonym of `user_id`")
    query_hash: Hash
    conversation_hash: Hash | None
    profile_hash: Hash | None
    answer_hash: Hash
    candidates: list[ReceiptCandidate] = Field(description="Every bid, in the order given")
    ads_unavailable: bool
    contract: str = Field(description="Version and layout of the prompt")
    model: ReceiptModel
    sampling: ReceiptSampling
    max_ads: int
    insertions: list[ReceiptInsertion]
    faults: list[ReceiptFault]
    finish_reason: str
    text: ReceiptText | None = None


class ReceiptSignature(BaseModel):
    """Of the receipt as JSON with sorted keys, without spaces, in ASCII."""

    algorithm: Literal["HMAC-SHA256"]
    key_id: str
    value: Hash


class ChargeNow(BaseModel):
    """What became of one insertion's charge so far."""

    ad_id: str
    state: Literal["open", "charged", "expired", "refused"] = Field(
        description="`open`: a click would be charged; `expired`: none came in time; `refused`: the"
        " budget had no room for the impression"
    )
    charge_id: str | None
    amount_micros: int


class SignedReceipt(BaseModel):
    """A receipt with its signature."""

    receipt: Receipt
    signature: ReceiptSignature


class ReceiptNow(SignedReceipt):
    """A signed receipt, and what its charges have come to; that changes, and is not signed."""

    charges: list[ChargeNow]


class ReceiptToCheck(Incoming):
    """A receipt as it was handed out; `charges` may be left in. With `query` or `answer`, they are
    compared with the receipt's hashes."""

    receipt: dict[str, Any]
    signature: dict[str, str]
    charges: list[dict[str, Any]] | None = None
    query: str | None = Field(None, max_length=8_000)
    answer: str | None = Field(None, max_length=1_000_000)


class ReceiptCheck(BaseModel):
    """Whether this service has signed exactly this receipt."""

    valid: bool
    query_matches: bool | None = Field(description="Null where no query was sent")
    answer_matches: bool | None = Field(description="Null where no answer was sent")


class Erased(BaseModel):
    """What was erased."""

    receipts: int = Field(ge=0)
    showings: bool = Field(description="Whether it was known which ads the user was shown lately")
