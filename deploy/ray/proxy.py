"""A clear error in place of an answer that was lost with its replica. Runs inside Ray's proxies.

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deploy.ray.proxy:middlewares ray start …

For a replica that dies with requests under way Ray's proxy sends nothing at all, so that its server
makes a bare 500 of it. An answer that had begun to stream ends where it is, as its status has been
sent.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import Unavailable

_RETRY_AFTER_MS = 1_000


class ReplicaLost:
    """ASGI middleware: where no answer was begun, a 503 that says to ask again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        await self.app(scope, receive, watched_send)
        if scope["type"] == "http" and not is_begun:
            lost = Unavailable(
                "The replica that was answering is gone; ask again", retry_after_ms=_RETRY_AFTER_MS
            )
            request_id = Headers(scope=scope).get("x-request-id")
            await problem_response(lost, request_id)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray puts around its proxy."""
    return [Middleware(ReplicaLost)]
