"""Around every request: an id, the trace, one log line and the HTTP metrics. Pure ASGI."""

import logging
import re
import secrets
from time import monotonic
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs, tracing
from service.api.problems import problem_response
from service.errors import ProblemError
from service.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_CLIENT_LEFT = 499
"""nginx's word for a client that left before the answer began."""
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for every few seconds, by machines."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ACCOUNTS = ("/ads/", "/advertisers/")
"""Where money is decided on: who has changed what has to be found later."""


class Access:
    """ASGI middleware around the door, so that refusals there are seen too.

    Only Starlette's handler of last resort stands further out. It would answer what broke with no
    request id, and after the request was counted: so nothing that broke goes on from here.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: "Tracer | None" = None) -> None:
        self.app = app
        self.metrics = metrics
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(16)
        trace = tracing.begin(headers, None if scope["path"] in _UNTRACED else self.tracer)
        scope.setdefault("state", {}).update(request_id=request_id, trace_headers=trace.headers)
        logs.request_id.set(request_id)
        logs.trace_id.set(trace.trace_id)
        status, has_begun = _CLIENT_LEFT, False
        begun = monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as bug:
            log.error("unhandled error", exc_info=bug)
            if not has_begun:
                await problem_response(ProblemError(), request_id)(scope, receive, send_with_id)
            status = ProblemError.status  # of half a response the server closes the connection
        finally:
            self._account(scope, status, monotonic() - begun, trace)

    def _account(self, scope: Scope, status: int, seconds: float, trace: tracing.Trace) -> None:
        route = _route(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        tracing.end(trace, method, route, status)
        self.metrics.http_requests.labels(route, method, str(status)).inc()
        self.metrics.http_seconds.labels(route).observe(seconds)
        told = {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }
        if (caller := scope["state"].get("caller")) is not None:
            told["caller"] = caller.name
        if method in _WRITING and scope["path"].startswith(_ACCOUNTS):
            told["path"] = scope["path"]
        log.info("request", extra=told)


def _route(scope: Scope) -> str:
    """The path of the route asked for, with its parameters' names: few, so that it can be a label.

    What was refused at the door had not come as far as its route.
    """
    if "route" in scope:
        return str(scope["route"].path)
    found = (route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE)
    return getattr(next(found, None), "path", "unmatched")
