"""A clear error in place of an answer that was lost with its replica. Runs inside Ray's proxies.

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deploy.ray.proxy:middlewares ray start …

Of a replica that dies with requests under way, Ray tells their callers no more than 500 in plain
text. The service's own errors are problem details, which pass. An answer that had begun to stream
ends where it is, as its status has been sent.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import Unavailable

_RETRY_AFTER_MS = 1_000


class ReplicaLost:
    """ASGI middleware that turns Ray's plain 500 into a 503 that says to ask again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_lost = False

        async def send_clearly(message: Message) -> None:
            nonlocal is_lost
            is_lost = is_lost or _is_plain_500(message)
            if not is_lost:
                await send(message)

        await self.app(scope, receive, send_clearly)
        if is_lost:
            lost = Unavailable(
                "The replica that was answering is gone; ask again", retry_after_ms=_RETRY_AFTER_MS
            )
            await problem_response(lost, Headers(scope=scope).get("x-request-id"))(
                scope, receive, send
            )


def _is_plain_500(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 500:
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


def middlewares() -> list[Middleware]:
    """What Ray puts around its proxy."""
    return [Middleware(ReplicaLost)]
