"""The door: who comes in, how much they carry, and what happens when they leave.

Pure ASGI, around the whole application, in the order of cost: authenticate, read the body up to
its limit, refuse what exceeds the bound on answers at once, then run the request and cancel it
as soon as its client goes away, streaming or not. It knows nothing of what a request asks for.
"""

import asyncio
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import ANYONE, ApiKey, find_key, scope_needed
from service.api.problems import problem_response
from service.errors import (
    BodyTooLarge,
    Draining,
    Forbidden,
    Overloaded,
    ProblemError,
    Unauthorized,
)
from service.life import Life
from service.metrics import Metrics
from service.settings import Settings

GENERATING = frozenset({"/respond"})
"""Paths that run the model: bounded in number, and cancelled when their client leaves."""


class ClientGone(Exception):
    """The client closed the connection while its body was being read."""


class Door:
    """ASGI middleware. `keys` empty: everybody may do everything (loopback only)."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: tuple[ApiKey, ...],
        metrics: Metrics,
        life: Life,
    ) -> None:
        self.app = app
        self.keys = keys
        self.life = life
        self.http = settings.http
        self.limits = settings.limits
        self.metrics = metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            state["caller"] = self._authenticate(scope)
            body = await self._read_body(scope, receive)
            # whole: how long a client takes to send it is not this service's doing
            state["received_at"] = monotonic()
            if scope["path"] not in GENERATING:
                await self.app(scope, _replay(body, receive), send)
                return
            self._admit()
            state["body"] = body
        except ClientGone:
            return
        except ProblemError as problem:
            self.metrics.refused.labels(problem.code).inc()
            await problem_response(problem, state.get("request_id"))(scope, receive, send)
            return
        await self._run(scope, body, receive, send)

    def _authenticate(self, scope: Scope) -> ApiKey:
        needed = scope_needed(scope["method"], scope["path"])
        if not self.keys or needed is None:
            return ANYONE
        key = find_key(self.keys, Headers(scope=scope).get("authorization", ""))
        if key is None:
            raise Unauthorized("Send `Authorization: Bearer <key>` with a key of this deployment")
        if not key.allows(needed):
            raise Forbidden(f"This needs the scope `{needed}`")
        return key

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        is_import = scope["path"] == "/ads/import"
        limit = self.http.max_import_bytes if is_import else self.http.max_body_bytes
        announced = Headers(scope=scope).get("content-length", "0")
        size = int(announced) if announced.isdigit() else 0
        body = bytearray()
        while size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            size = len(body)
            if size <= limit and not message.get("more_body", False):
                return bytes(body)
        raise BodyTooLarge(f"At most {limit} bytes are allowed here")

    def _admit(self) -> None:
        if self.life.is_draining:
            raise Draining(retry_after_ms=self.limits.retry_after_ms)
        if self.in_flight >= self.limits.max_requests:
            raise Overloaded(
                f"{self.in_flight} answers are in the making",
                retry_after_ms=self.limits.retry_after_ms,
            )

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            await self._until_disconnect(scope, body, receive, send)
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)

    async def _until_disconnect(
        self, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        """Run the request; when its client goes away first, cancel it and return once it has
        cleaned up."""
        is_over = has_left = False

        async def watched_send(message: Message) -> None:
            nonlocal is_over
            await send(message)
            is_over = message["type"] == "http.response.body" and not message.get("more_body")

        def leave(_: asyncio.Task[Message]) -> None:
            nonlocal has_left
            if not is_over:
                has_left = answering.cancel()

        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            with self.life.answering() as answering:
                gone.add_done_callback(leave)
                await self.app(scope, _replay(body, lambda: asyncio.shield(gone)), watched_send)
        except asyncio.CancelledError:
            if not has_left or answering.cancelling() > 1:  # by others
                raise
        finally:
            is_over = True
            gone.cancel()
            if has_left:
                answering.uncancel()


async def _disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body that was already read, then listens again."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
