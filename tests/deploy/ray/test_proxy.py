"""Callers learn that their replica was lost, and nothing else is touched."""

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from deploy.ray.proxy import ReplicaLost


def proxy(response: Response | None) -> httpx.AsyncClient:
    """A proxy whose replica answers, or is lost."""

    async def answer(scope, receive, send):  # type: ignore[no-untyped-def]
        await Request(scope, receive).body()
        if response is not None:
            await response(scope, receive, send)

    transport = httpx.ASGITransport(ReplicaLost(answer))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_a_lost_replica_is_a_503_to_ask_again() -> None:
    async with proxy(None) as client:
        answer = await client.post("/respond", json={}, headers={"X-Request-Id": "req-1"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "ask again" in answer.json()["detail"]


@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({"code": "internal_error"}, 500, media_type="application/problem+json"),
        PlainTextResponse("Path not found", 404),
        StreamingResponse(iter([b"data: 1\n\n", b"data: 2\n\n"]), media_type="text/event-stream"),
    ],
    ids=["own error", "not found", "stream"],
)
async def test_everything_else_passes(response: Response) -> None:
    async with proxy(response) as client:
        answer = await client.post("/respond", json={})
    assert answer.status_code == response.status_code
    assert answer.headers["content-type"] == response.headers["content-type"]
    assert answer.content
