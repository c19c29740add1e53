"""Receipts: read, check and erase them; export and erase what is kept about a user.

What was charged stays in the ledger, which holds no user and no text.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse

from service.api.problems import documented
from service.api.receipt_schemas import (
    ChargeNow,
    Erased,
    ReceiptCheck,
    ReceiptNow,
    ReceiptToCheck,
)
from service.errors import (
    Forbidden,
    InvalidRequest,
    MalformedBody,
    NotFound,
    StoreDown,
    Unauthorized,
)
from service.receipt import is_genuine, is_same_hash, pseudonym, text_hash
from service.services import Services
from service.store.connection import StoreUnavailable
from service.store.ledger import Recorded

_RETRY_AFTER_MS = 1_000
_CHUNK = 100

ResponseId = Annotated[str, Path(pattern=r"^resp_[0-9a-f]{32}$")]
UserId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="As in requests")]
_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line each: signed receipts, then the ads shown lately; oldest first",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


def router() -> APIRouter:
    """Routes `/responses/{response_id}`, `/receipts/verify` and `/users/{user_id}/data`."""
    refusals = documented(Unauthorized, Forbidden, InvalidRequest, StoreDown)
    routes = APIRouter(tags=["receipts"], responses=refusals)
    unknown = documented(NotFound)
    one = "/responses/{response_id}"
    routes.get(one, summary="An answer's receipt", response_model=ReceiptNow, responses=unknown)(
        get_receipt
    )
    routes.delete(one, summary="Erase an answer's receipt", status_code=204, responses=unknown)(
        erase_receipt
    )
    routes.post(
        "/receipts/verify",
        summary="Check a receipt's signature",
        responses=documented(MalformedBody),
    )(verify_receipt)
    data = "/users/{user_id}/data"
    routes.get(
        data,
        summary="All that is kept about a user",
        response_class=StreamingResponse,
        responses=_LINES,
    )(export_user)
    routes.delete(data, summary="Erase all that is kept about a user")(erase_user)
    return routes


async def get_receipt(response_id: ResponseId, request: Request) -> Response:
    services: Services = request.app.state.services
    async with _store_errors():
        signed = await services.receipts.get(response_id)
        if signed is None:
            raise NotFound("There is no receipt of this id, or it was erased, or its time is over")
        charges = await services.ledger.charges(response_id)
    document = json.loads(signed)
    now = [
        _charge_now(insertion, charges.get(insertion["ad_id"]))
        for insertion in document["receipt"]["insertions"]
    ]
    document["charges"] = [charge.model_dump() for charge in now]
    return Response(json.dumps(document, ensure_ascii=False), media_type="application/json")


async def erase_receipt(response_id: ResponseId, request: Request) -> None:
    services: Services = request.app.state.services
    async with _store_errors():
        if not await services.receipts.erase(response_id):
            raise NotFound("There is no receipt of this id")


async def verify_receipt(body: ReceiptToCheck, request: Request) -> ReceiptCheck:
    services: Services = request.app.state.services

    def matches(text: str | None, name: str) -> bool | None:
        if text is None:
            return None
        return is_same_hash(text_hash(text, services.secret), str(body.receipt.get(name, "")))

    return ReceiptCheck(
        valid=is_genuine(body.receipt, body.signature, services.signing),
        query_matches=matches(body.query, "query_hash"),
        answer_matches=matches(body.answer, "answer_hash"),
    )


async def export_user(user_id: UserId, request: Request) -> Response:
    services: Services = request.app.state.services
    user = pseudonym(user_id, services.secret)
    async with _store_errors():
        response_ids = await services.receipts.of_user(user)
        showings = await services.showings.read(user)

    async def lines() -> AsyncGenerator[bytes]:
        # a store that goes away now breaks the transfer off, which a client notices
        for start in range(0, len(response_ids), _CHUNK):
            held = await services.receipts.get_many(response_ids[start : start + _CHUNK])
            yield b"".join(signed + b"\n" for signed in held if signed is not None)
        for showing in showings:
            yield json.dumps({"shown": asdict(showing)}).encode() + b"\n"

    headers = {"Content-Disposition": 'attachment; filename="user-data.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


async def erase_user(user_id: UserId, request: Request) -> Erased:
    services: Services = request.app.state.services
    user = pseudonym(user_id, services.secret)
    async with _store_errors():
        return Erased(
            receipts=await services.receipts.erase_user(user),
            showings=await services.showings.erase(user),
        )


def _charge_now(insertion: dict[str, Any], recorded: Recorded | None) -> ChargeNow:
    if recorded is not None:
        return ChargeNow(
            ad_id=insertion["ad_id"],
            state="charged",
            charge_id=recorded.charge_id,
            amount_micros=recorded.amount_micros,
        )
    return ChargeNow(
        ad_id=insertion["ad_id"],
        state=_uncharged(insertion["charge"]),
        charge_id=None,
        amount_micros=0,
    )


def _uncharged(charge: dict[str, Any]) -> Literal["open", "expired", "refused"]:
    """Why nothing was charged so far. Impressions are charged with the record or not at all."""
    if charge["event"] == "impression":
        return "refused"
    is_open = datetime.now(UTC) < datetime.fromisoformat(charge["expires_at"])
    return "open" if is_open else "expired"


@asynccontextmanager
async def _store_errors() -> AsyncGenerator[None]:
    """A store that is away becomes a 503."""
    try:
        yield
    except StoreUnavailable as away:
        raise StoreDown(retry_after_ms=_RETRY_AFTER_MS) from away
