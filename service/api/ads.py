"""`/ads`: enter, read, change and remove ads, one at a time or many at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from service.api.problems import as_problem, documented
from service.auction.ad import Ad, AdFields, Identifier
from service.auction.ad_rows import Row, RowFormat, read_rows
from service.errors import (
    BodyTooLarge,
    FieldError,
    Forbidden,
    InvalidRequest,
    MalformedBody,
    NotFound,
    StoreDown,
    Unauthorized,
    UnsupportedMediaType,
)
from service.store.catalog import Catalog, ImportInterrupted
from service.store.connection import StoreUnavailable

MAX_BAD_ROWS = 1_000
"""An import with more bad rows is not read to its end, nor imported."""

_RETRY_AFTER_MS = 1_000
_FORMATS = {
    "application/x-ndjson": RowFormat.NDJSON,
    "application/ndjson": RowFormat.NDJSON,
    "application/jsonl": RowFormat.NDJSON,
    "text/csv": RowFormat.CSV,
}

AdId = Annotated[Identifier, Path()]


class AdBody(AdFields):
    """An ad as it is entered; `ad_id` may be left out, or must be the one in the path."""

    ad_id: Identifier | None = None


class AdPage(BaseModel):
    """Ads in the order of their ids."""

    ads: list[Ad]
    cursor: str | None = Field(description="Pass it on for the next page; null at the end")


class BadRow(BaseModel):
    """One wrong field of one row; `field` is empty where the row as a whole is wrong."""

    line: int = Field(ge=1)
    field: str
    msg: str


class ImportResult(BaseModel):
    """What an import did."""

    created: int
    replaced: int
    skipped: int = Field(description="Bad rows, with `skip_bad`")
    bad: list[BadRow]


def router() -> APIRouter:
    """Routes `/ads`, `/ads/import` and `/ads/{ad_id}`."""
    refusals = documented(Unauthorized, Forbidden, InvalidRequest, StoreDown)
    routes = APIRouter(prefix="/ads", tags=["ads"], responses=refusals)
    unknown = documented(NotFound)
    bodily = documented(MalformedBody, BodyTooLarge)
    routes.get("", summary="All ads, a page at a time")(list_ads)
    routes.post(
        "/import",
        summary="Enter many ads at once, from NDJSON or CSV",
        responses=bodily | documented(UnsupportedMediaType),
        openapi_extra=_IMPORT_BODY,
    )(import_ads)
    routes.get("/{ad_id}", summary="One ad", responses=unknown)(get_ad)
    routes.put(
        "/{ad_id}",
        summary="Enter an ad, or replace it",
        responses=bodily | {201: {"model": Ad, "description": "The ad is new"}},
    )(put_ad)
    routes.patch(
        "/{ad_id}",
        summary="Change some fields of an ad (JSON merge patch, RFC 7396)",
        responses=bodily | unknown,
        openapi_extra=_PATCH_BODY,
    )(patch_ad)
    routes.delete("/{ad_id}", summary="Remove an ad", status_code=204, responses=unknown)(delete_ad)
    return routes


async def list_ads(
    request: Request,
    cursor: Annotated[Identifier | None, Query(description="From the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> AdPage:
    async with _catalog(request) as catalog:
        page = await catalog.list(cursor, limit)
    return AdPage(ads=list(page.ads), cursor=page.cursor)


async def get_ad(request: Request, ad_id: AdId) -> Ad:
    async with _catalog(request) as catalog:
        return _found(await catalog.get(ad_id))


async def put_ad(request: Request, response: Response, ad_id: AdId, body: AdBody) -> Ad:
    if body.ad_id not in {None, ad_id}:
        raise _other_id()
    ad = Ad.identified(ad_id, body)
    async with _catalog(request) as catalog:
        is_new = await catalog.put(ad)
    response.status_code = 201 if is_new else 200
    return ad


async def patch_ad(request: Request, ad_id: AdId, body: Annotated[dict[str, Any], Body()]) -> Ad:
    def change(ad: Ad) -> Ad:
        merged = merge_patch(ad.model_dump(mode="json", by_alias=True), body)
        if merged.get("ad_id") != ad_id:
            raise _other_id()
        try:
            return Ad.model_validate(merged)
        except ValidationError as wrong:
            errors = wrong.errors(include_url=False)
            raise as_problem(
                [{**error, "loc": ("body", *error["loc"])} for error in errors]
            ) from wrong

    async with _catalog(request) as catalog:
        return _found(await catalog.patch(ad_id, change))


async def delete_ad(request: Request, ad_id: AdId) -> None:
    async with _catalog(request) as catalog:
        if not await catalog.delete(ad_id):
            raise NotFound("There is no such ad")


async def import_ads(
    request: Request,
    skip_bad: Annotated[
        bool, Query(description="Import the good rows, if any, though others are bad")
    ] = False,
) -> ImportResult:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _FORMATS:
        raise UnsupportedMediaType(f"Send one of {', '.join(_FORMATS)}")
    body = await request.body()
    # a large body takes seconds to check, which other requests should not notice
    ads, bad = await asyncio.to_thread(_sort_rows, body, _FORMATS[content_type])
    if bad and not (skip_bad and ads):
        raise InvalidRequest("Nothing was imported", errors=_as_field_errors(bad))
    async with _catalog(request) as catalog:
        imported = await catalog.import_many(ads)
    return ImportResult(
        created=imported.created,
        replaced=imported.replaced,
        skipped=len(bad),
        bad=[BadRow(line=row.line, field=e.field, msg=e.msg) for row in bad for e in row.errors],
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed by `patch` (RFC 7396): null removes, objects merge, all else sets."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _sort_rows(body: bytes, row_format: RowFormat) -> tuple[list[Ad], list[Row]]:
    """Good and bad rows. Raises InvalidRequest where there are too many bad ones."""
    ads: list[Ad] = []
    bad: list[Row] = []
    for row in read_rows(body, row_format):
        if row.ad is not None:
            ads.append(row.ad)
        else:
            bad.append(row)
        if len(bad) > MAX_BAD_ROWS:
            detail = f"Over {MAX_BAD_ROWS} bad rows up to line {row.line}; nothing was imported"
            raise InvalidRequest(detail, errors=_as_field_errors(bad))
    return ads, bad


def _as_field_errors(bad: list[Row]) -> list[FieldError]:
    """Rows' errors with places such as `line/3/title`."""
    return [
        FieldError("/".join(filter(None, ("line", str(row.line), error.field))), error.msg)
        for row in bad
        for error in row.errors
    ]


def _found(ad: Ad | None) -> Ad:
    if ad is None:
        raise NotFound("There is no such ad")
    return ad


def _other_id() -> InvalidRequest:
    return InvalidRequest(errors=[FieldError("/ad_id", "must be the id in the path, or left out")])


@asynccontextmanager
async def _catalog(request: Request) -> AsyncIterator[Catalog]:
    """The catalogue; a store that is away becomes a 503."""
    try:
        yield request.app.state.services.catalog
    except ImportInterrupted as away:
        detail = f"The first {away.saved} good rows were imported; sending all again is safe"
        raise StoreDown(detail, retry_after_ms=_RETRY_AFTER_MS) from away
    except StoreUnavailable as away:
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS) from away


_EXAMPLE = {
    "ad_id": "Ad-1001",
    "title": "Trailhead Waterproof Boots",
    "category": "hiking boots",
    "landing_url": "https://www.trailhead-boots.example/",
    "advertiser_id": "adv-trailhead",
}
_ROWS_BY_TYPE = {
    "application/x-ndjson": json.dumps(_EXAMPLE) + "\n",
    "text/csv": ",".join(_EXAMPLE) + "\n" + ",".join(_EXAMPLE.values()) + "\n",
}
_IMPORT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "string"}, "example": rows}
            for media_type, rows in _ROWS_BY_TYPE.items()
        },
    }
}
_PATCH_SCHEMA = {
    "type": "object",
    "description": "Fields as in an ad; null sets a field back to its default",
    "properties": {name: {} for name in AdBody.model_json_schema()["properties"]},
    "additionalProperties": False,
}
_PATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": _PATCH_SCHEMA, "example": {"status": "paused"}}
            for media_type in ("application/merge-patch+json", "application/json")
        },
    }
}
