"""Top-ups: money added to the total budget of an ad or an advertiser, once."""

from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.ads import AdId
from service.api.advertisers import AdvertiserId
from service.api.problems import documented
from service.auction.ad import Ad, Allowance
from service.auction.advertiser import Advertiser
from service.errors import (
    BodyTooLarge,
    FieldError,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    MalformedBody,
    NotFound,
    StoreDown,
    Unauthorized,
)
from service.services import Services
from service.store.connection import StoreUnavailable
from service.store.records import BudgetTooLarge, NothingToTopUp, Records, ReferenceConflict

T = TypeVar("T", Ad, Advertiser)
_RETRY_AFTER_MS = 1_000

Reference = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Your name for this top-up: sent again it adds nothing. Kept for ever",
    ),
]


class TopUp(BaseModel):
    """Money to add."""

    model_config = ConfigDict(extra="forbid")

    amount_micros: Annotated[Allowance, Field(gt=0)] = Field(
        alias="amount", description="In units of the deployment's currency"
    )


def router() -> APIRouter:
    """Routes `/ads/{ad_id}/top-up` and `/advertisers/{advertiser_id}/top-up`."""
    refusals = documented(
        BodyTooLarge,
        Forbidden,
        IdempotencyConflict,
        InvalidRequest,
        MalformedBody,
        NotFound,
        StoreDown,
        Unauthorized,
    )
    routes = APIRouter(responses=refusals)
    summary = "Add to the total budget, once for each Idempotency-Key"
    routes.post("/ads/{ad_id}/top-up", summary=summary, tags=["ads"])(top_up_ad)
    routes.post("/advertisers/{advertiser_id}/top-up", summary=summary, tags=["advertisers"])(
        top_up_advertiser
    )
    return routes


async def top_up_ad(
    request: Request, response: Response, ad_id: AdId, body: TopUp, reference: Reference = None
) -> Ad:
    services: Services = request.app.state.services
    return await _top_up(services.catalog, ad_id, body, reference, response)


async def top_up_advertiser(
    request: Request,
    response: Response,
    advertiser_id: AdvertiserId,
    body: TopUp,
    reference: Reference = None,
) -> Advertiser:
    services: Services = request.app.state.services
    return await _top_up(services.advertisers, advertiser_id, body, reference, response)


async def _top_up(
    records: Records[T], record_id: str, body: TopUp, reference: str | None, response: Response
) -> T:
    try:
        done = await records.top_up(record_id, body.amount_micros, reference)
    except NothingToTopUp as unlimited:
        detail = "There is no total budget, so spend has no limit; set one first"
        raise InvalidRequest(detail) from unlimited
    except BudgetTooLarge as too_large:
        told = "would raise the budget over the largest that can be kept, 1,000,000,000"
        raise InvalidRequest(errors=[FieldError("/amount", told)]) from too_large
    except ReferenceConflict as conflict:
        raise IdempotencyConflict("Use a fresh key for another amount") from conflict
    except StoreUnavailable as away:
        detail = "With an Idempotency-Key it is safe to send it again"
        raise StoreDown(detail, retry_after_ms=_RETRY_AFTER_MS) from away
    if done is None:
        raise NotFound("There is nothing of that id to top up")
    if done.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return done.record
