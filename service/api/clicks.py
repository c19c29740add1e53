"""Clicks: `GET /c/{token}` for browsers, `POST /v1/clicks` for servers.

A token that was ever valid always leads to its ad's landing page, charged or not: the page is
looked up here and never taken from the address. While the store is away clicks are redirected as
far as this process remembers where to, and not charged.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from service.api.problems import documented
from service.api.schemas import Incoming
from service.auction.click_quality import NoClick, no_click
from service.auction.click_token import MAX_CHARACTERS, ClickTerms, ForgedToken, read
from service.click import ClickOutcome, Settled, settle, settle_or_park
from service.errors import (
    Forbidden,
    InvalidRequest,
    MalformedBody,
    NotFound,
    StoreDown,
    Unauthorized,
)
from service.services import Services
from service.store.connection import StoreUnavailable

_RETRY_AFTER_MS = 1_000
_HEADERS = {
    # every click must come here, and only here
    "Cache-Control": "no-store",
    # the page must not learn which conversation its visitor comes from
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}

ClickState = Literal["charged", "duplicate", "expired", "budget_exhausted", "invalid"]
_STATES: dict[ClickOutcome, ClickState] = {
    ClickOutcome.CHARGED: "charged",
    ClickOutcome.DUPLICATE: "duplicate",
    ClickOutcome.EXPIRED: "expired",
    ClickOutcome.BUDGET_EXHAUSTED: "budget_exhausted",
}

Token = Annotated[str, Path(description="From `click_url` in an answer")]


class ClickReport(Incoming):
    """A click that a server saw."""

    token: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    client_event_id: str | None = Field(
        None,
        pattern=r"^[\x21-\x7e]{1,128}$",
        description="The same again with the same token is a replay, not another click",
    )


class ClickResult(BaseModel):
    """What a click came to."""

    state: ClickState = Field(
        description="`invalid`: the token is forged, or its answer left no receipt; while the"
        " answer is being written, report again when it is done"
    )
    charge_id: str | None
    amount_micros: int = Field(ge=0, description="Charged for this ad and answer by this event")
    replayed: bool = Field(description="This event was reported before; charge and amount are its")


def router() -> APIRouter:
    """Routes `/c/{token}` and `/v1/clicks`."""
    routes = APIRouter(tags=["clicks"])
    followed = documented(NotFound, StoreDown)
    followed[302] = {"description": "To the ad's landing page, charged or not"}
    routes.get(
        "/c/{token}",
        summary="Follow an ad",
        status_code=302,
        response_class=Response,
        responses=followed,
    )(follow)
    routes.head("/c/{token}", include_in_schema=False)(follow)
    routes.post(
        "/v1/clicks",
        summary="Report a click that a server saw",
        responses=documented(Unauthorized, Forbidden, InvalidRequest, MalformedBody, StoreDown),
    )(report_click)
    return routes


async def follow(token: Token, request: Request) -> Response:
    services: Services = request.app.state.services
    try:
        terms = read(token, services.signing)
    except ForgedToken as forged:
        _count(services, ClickOutcome.FORGED)
        raise NotFound("This link was not made here") from forged
    ignored = no_click(request.method, request.headers)
    landing_url, outcome = await _followed(terms, ignored, services)
    _count(services, outcome)
    if landing_url is None and outcome is ClickOutcome.STORE_UNAVAILABLE:
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS)
    if landing_url is None:
        raise NotFound("Nothing is known of this ad any more")
    return Response(status_code=302, headers={**_HEADERS, "Location": landing_url})


async def report_click(body: ClickReport, request: Request) -> ClickResult:
    services: Services = request.app.state.services
    try:
        terms = read(body.token, services.signing)
        target = await services.click_targets.find(terms.response_id, terms.ad_id)
        settled = await settle(terms, target, services, datetime.now(UTC), body.client_event_id)
    except ForgedToken:
        settled = Settled(ClickOutcome.FORGED)
    except StoreUnavailable as away:
        _count(services, ClickOutcome.STORE_UNAVAILABLE)
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS) from away
    _count(services, settled.outcome)
    return ClickResult(
        state=_STATES.get(settled.outcome, "invalid"),
        charge_id=settled.charge_id,
        amount_micros=settled.amount_micros,
        replayed=settled.is_replayed,
    )


async def _followed(
    terms: ClickTerms, ignored: NoClick | None, services: Services
) -> tuple[str | None, ClickOutcome | NoClick]:
    """Where the click leads, if that is known, and what became of it."""
    landing_url = services.click_targets.remembered(terms.ad_id)
    try:
        target = await services.click_targets.find(terms.response_id, terms.ad_id)
        landing_url = target.landing_url or landing_url
        if ignored is not None or landing_url is None:
            return landing_url, ignored or ClickOutcome.UNRECORDED
        settled = await settle_or_park(terms, target, services, datetime.now(UTC))
    except StoreUnavailable:
        # whether a charge was made is not known; a repeated one would be a duplicate
        return landing_url, ClickOutcome.STORE_UNAVAILABLE
    return landing_url, settled.outcome


def _count(services: Services, outcome: ClickOutcome | NoClick) -> None:
    services.metrics.clicks.labels(outcome).inc()
