"""`POST /respond`: a question and candidate ads in, an answer with its ads and charges out."""

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.contract.neutral import neutralise
from models.contract.prompt import Profile, Turn
from service.answer import AdPart, Answer, Ask, TextPart
from service.api.auth import Scope as KeyScope
from service.api.once import Fulfilment, claim_once
from service.api.problems import documented, problem_body
from service.api.render import ClickLink, as_event, as_response, error_event, replayed
from service.api.schemas import RespondRequest, RespondResponse
from service.auction.eligibility import Bid
from service.errors import (
    BodyTooLarge,
    FieldError,
    Forbidden,
    IdempotencyConflict,
    IdempotencyInProgress,
    InvalidRequest,
    MalformedBody,
    ModelUnavailable,
    Overloaded,
    ProblemError,
    PromptTooLarge,
    Unauthorized,
)
from service.respond import respond
from service.services import Services
from service.store.idempotency import Claim

T = TypeVar("T")
Part = TextPart | AdPart | RespondResponse

_PLAIN_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and body replay the stored response; another body is a 409",
    ),
]
_OK = {
    "description": "The answer; with `stream: true` as events `text`, `ad`, `done`, `error`",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "event": {"enum": ["text", "ad", "done", "error"]},
                    "data": {"type": "string", "description": "JSON"},
                },
            }
        }
    },
}
_PROBLEMS = documented(
    BodyTooLarge,
    Forbidden,
    IdempotencyConflict,
    IdempotencyInProgress,
    InvalidRequest,
    MalformedBody,
    ModelUnavailable,
    Overloaded,
    PromptTooLarge,
    Unauthorized,
)


class _Shortcut(APIRoute):
    """Goes straight to the endpoint where body and headers are plainly valid.

    So no answer pays for FastAPI's dependencies and for a second reading of its body. Whatever else
    a request is, it goes FastAPI's way, which says what is wrong with it.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            key = _plain_key(scope)
            body = RespondRequest.model_validate_json(scope["state"]["body"])
        except ValueError:
            await super().handle(scope, receive, send)
            return
        response: Response = await self.endpoint(body, Request(scope), key)
        await response(scope, receive, send)


def _plain_key(scope: Scope) -> str | None:
    """The idempotency key of a POST of JSON. Raises ValueError for every other request."""
    headers = Headers(scope=scope)
    key = headers.get("idempotency-key")
    is_json = headers.get("content-type", "").partition(";")[0] == "application/json"
    if not is_json or scope["method"] != "POST" or not (key is None or _PLAIN_KEY.fullmatch(key)):
        raise ValueError
    return key


def router() -> APIRouter:
    """The route of `POST /respond`."""
    routes = APIRouter(tags=["respond"], route_class=_Shortcut)

    @routes.post(
        "/respond",
        summary="One question, one generation, an answer with its ads",
        response_model=RespondResponse,
        responses={200: _OK, **_PROBLEMS},
    )
    async def post_respond(
        body: RespondRequest, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Response:
        services: Services = request.app.state.services
        ask = as_ask(body, services, request.scope["state"])
        link = ClickLink(services.settings.http.public_url or str(request.base_url))
        if idempotency_key is None:
            parts = answer_parts(ask, services, link)
        else:
            claim = await claim_once(
                services.idempotency,
                request.scope["state"]["caller"].name,
                idempotency_key,
                request.scope["state"]["body"],
                ask.deadline_at,
            )
            if claim is None:
                parts = answer_parts(ask, services, link, can_charge=False)
            elif isinstance(claim, Claim):
                fulfilment = Fulfilment(services.idempotency, claim, link)
                parts = answer_parts(ask, services, link, fulfilment)
            else:
                return _replay(claim, body.stream)
        if not body.stream:
            return await _whole(parts)
        first = await anext(parts)
        return EventStream(first, parts, link, request.scope["state"]["request_id"])

    return routes


def as_ask(body: RespondRequest, services: Services, state: dict[str, Any]) -> Ask:
    """The request in the service's own nouns, with the deployment's defaults filled in.

    state: what the door noted about the request. Raises InvalidRequest.
    """
    if body.probe and not state["caller"].allows(KeyScope.ADMIN):
        raise Forbidden("A probe needs the scope `admin`")
    limits, defaults = services.settings.limits, services.settings.generation
    if body.max_tokens is not None and body.max_tokens > limits.max_tokens:
        msg = f"must be at most {limits.max_tokens} in this deployment"
        raise InvalidRequest(errors=[FieldError("/max_tokens", msg)])
    if not neutralise(body.query):
        raise InvalidRequest(errors=[FieldError("/query", "must hold some text")])
    profile = body.user_profile
    deadline_ms = _first(body.deadline_ms, limits.deadline_ms)
    return Ask(
        response_id=f"resp_{secrets.token_hex(16)}",
        query=body.query,
        bids=tuple([Bid(c.ad_id, c.bid, c.pctr) for c in body.candidates]),
        conversation=tuple(Turn(turn.role, turn.content) for turn in body.conversation),
        profile=Profile(profile.info, tuple(profile.interests)) if profile else None,
        user_id=body.user_id,
        max_ads=_first(body.max_ads, defaults.max_ads),
        temperature=_first(body.temperature, defaults.temperature),
        top_p=_first(body.top_p, defaults.top_p),
        top_k=_first(body.top_k, defaults.top_k),
        max_tokens=_first(body.max_tokens, defaults.max_tokens),
        seed=body.seed,
        received_at=state["received_at"],
        deadline_at=state["received_at"] + deadline_ms / 1000,
        now=datetime.now(UTC),
        is_streamed=body.stream,
        caller=state["caller"].name,
        is_probe=body.probe,
        trace_headers=state["trace_headers"],
    )


def _first(given: T | None, default: T) -> T:
    return default if given is None else given


async def answer_parts(
    ask: Ask,
    services: Services,
    link: ClickLink,
    fulfilment: Fulfilment | None = None,
    *,
    can_charge: bool = True,
) -> AsyncGenerator[Part]:
    """The parts of the answer, then the response object, rendered once.

    fulfilment: keeps it for replay, before it is shown.
    """
    keep = None if fulfilment is None else fulfilment.keep
    try:
        async with aclosing(respond(ask, services, can_charge=can_charge, keep=keep)) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    kept = None if fulfilment is None else fulfilment.response
                    yield kept or as_response(part, link)
                else:
                    yield part
    finally:
        if fulfilment is not None:
            await services.life.complete(fulfilment.give_up())


async def _whole(parts: AsyncGenerator[Part]) -> Response:
    async with aclosing(parts):
        async for part in parts:
            last = part
    return Response(to_json(last), media_type="application/json")


def _replay(response: RespondResponse, is_stream: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"}
    if not is_stream:
        return Response(to_json(response), headers=headers, media_type="application/json")
    body = b"".join(replayed(response))
    return Response(body, headers=headers, media_type="text/event-stream")


class EventStream(Response):
    """Server-sent events of an answer. Closes `parts`, and so the generation, however it ends.

    Starlette's own streaming response leaves its iterator open when a client goes away in the
    middle of a send; the generation would run on until the garbage collector came by.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: Part, parts: AsyncGenerator[Part], link: ClickLink, request_id: str
    ) -> None:
        self.link = link
        self.first = first
        self.parts = parts
        self.request_id = request_id
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(body: bytes, more_body: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more_body})

        async with aclosing(self.parts):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await write(as_event(self.first, self.link))
            try:
                async for part in self.parts:
                    await write(as_event(part, self.link))
            except ProblemError as problem:
                await write(error_event(problem_body(problem, self.request_id)))
            await write(b"", more_body=False)
