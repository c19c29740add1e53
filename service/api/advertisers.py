"""`/advertisers`: who is active, and what each may spend on all of its ads together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from service.api.ads import merge_patch
from service.api.problems import as_problem, documented
from service.auction.ad import Identifier
from service.auction.advertiser import Advertiser, AdvertiserFields
from service.errors import (
    BodyTooLarge,
    FieldError,
    Forbidden,
    InvalidRequest,
    MalformedBody,
    NotFound,
    StoreDown,
    Unauthorized,
)
from service.store.advertisers import Advertisers
from service.store.connection import StoreUnavailable

_RETRY_AFTER_MS = 1_000

AdvertiserId = Annotated[Identifier, Path(examples=["adv-trailhead"])]


class AdvertiserBody(AdvertiserFields):
    """An advertiser as it is entered; the id may be left out, or must be the one in the path."""

    advertiser_id: Identifier | None = None


class AdvertiserPage(BaseModel):
    """Advertisers in the order of their ids."""

    advertisers: list[Advertiser]
    cursor: str | None = Field(description="Pass it on for the next page; null at the end")


def router() -> APIRouter:
    """Routes `/advertisers` and `/advertisers/{advertiser_id}`."""
    refusals = documented(Unauthorized, Forbidden, InvalidRequest, StoreDown)
    routes = APIRouter(prefix="/advertisers", tags=["advertisers"], responses=refusals)
    unknown = documented(NotFound)
    bodily = documented(MalformedBody, BodyTooLarge)
    routes.get("", summary="All advertisers, a page at a time")(list_advertisers)
    one = "/{advertiser_id}"
    routes.get(one, summary="One advertiser", responses=unknown)(get_advertiser)
    routes.put(
        one,
        summary="Enter an advertiser, or replace it",
        responses=bodily | {201: {"model": Advertiser, "description": "The advertiser is new"}},
    )(put_advertiser)
    routes.patch(
        one,
        summary="Change some fields of an advertiser (JSON merge patch, RFC 7396)",
        responses=bodily | unknown,
        openapi_extra=_PATCH_BODY,
    )(patch_advertiser)
    routes.delete(
        one,
        summary="Forget an advertiser's status and budget; its ads then run without its limits",
        status_code=204,
        responses=unknown,
    )(delete_advertiser)
    return routes


async def list_advertisers(
    request: Request,
    cursor: Annotated[Identifier | None, Query(description="From the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> AdvertiserPage:
    async with _advertisers(request) as advertisers:
        found, next_cursor = await advertisers.page(cursor, limit)
    return AdvertiserPage(advertisers=list(found), cursor=next_cursor)


async def get_advertiser(request: Request, advertiser_id: AdvertiserId) -> Advertiser:
    async with _advertisers(request) as advertisers:
        return _found(await advertisers.get(advertiser_id))


async def put_advertiser(
    request: Request, response: Response, advertiser_id: AdvertiserId, body: AdvertiserBody
) -> Advertiser:
    if body.advertiser_id not in {None, advertiser_id}:
        raise _other_id()
    advertiser = Advertiser.identified(advertiser_id, body)
    async with _advertisers(request) as advertisers:
        is_new = await advertisers.put(advertiser)
    response.status_code = 201 if is_new else 200
    return advertiser


async def patch_advertiser(
    request: Request, advertiser_id: AdvertiserId, body: Annotated[dict[str, Any], Body()]
) -> Advertiser:
    def change(advertiser: Advertiser) -> Advertiser:
        merged = merge_patch(advertiser.model_dump(mode="json", by_alias=True), body)
        if merged.get("advertiser_id") != advertiser_id:
            raise _other_id()
        try:
            return Advertiser.model_validate(merged)
        except ValidationError as wrong:
            errors = wrong.errors(include_url=False)
            raise as_problem(
                [{**error, "loc": ("body", *error["loc"])} for error in errors]
            ) from wrong

    async with _advertisers(request) as advertisers:
        return _found(await advertisers.patch(advertiser_id, change))


async def delete_advertiser(request: Request, advertiser_id: AdvertiserId) -> None:
    async with _advertisers(request) as advertisers:
        if not await advertisers.delete(advertiser_id):
            raise NotFound("There is no such advertiser")


def _found(advertiser: Advertiser | None) -> Advertiser:
    if advertiser is None:
        raise NotFound("There is no such advertiser")
    return advertiser


def _other_id() -> InvalidRequest:
    told = "must be the id in the path, or left out"
    return InvalidRequest(errors=[FieldError("/advertiser_id", told)])


@asynccontextmanager
async def _advertisers(request: Request) -> AsyncIterator[Advertisers]:
    """The advertisers; a store that is away becomes a 503."""
    try:
        yield request.app.state.services.advertisers
    except StoreUnavailable as away:
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS) from away


_PATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {
                "schema": {
                    "type": "object",
                    "description": "Fields as in an advertiser; null sets one back to its default",
                    "properties": {name: {} for name in Advertiser.model_fields},
                    "additionalProperties": False,
                },
                "example": {"status": "paused"},
            }
            for media_type in ("application/merge-patch+json", "application/json")
        },
    }
}
