"""What is told, counted and logged of every request, whatever becomes of it."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.access import Access
from service.api.auth import Scope as KeyScope
from service.api.auth import new_key
from service.api.door import Door
from service.api.problems import problem_response
from service.errors import Overloaded
from service.life import Life
from service.metrics import Metrics, create_metrics
from service.settings import Settings


@pytest.fixture
def metrics() -> Metrics:
    return create_metrics()


@pytest.fixture
def app(metrics: Metrics) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("a bug")

        return StreamingResponse(parts())

    app.add_middleware(Access, metrics=metrics)
    return app


def requests(metrics: Metrics, route: str, method: str, status: str) -> float | None:
    labels = {"route": route, "method": method, "status": status}
    return metrics.registry.get_sample_value("llm_auction_http_requests_total", labels)


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


class TestABug:
    async def test_is_a_500_with_the_requests_id(
        self, app: FastAPI, metrics: Metrics, caplog: pytest.LogCaptureFixture
    ) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            response = await http.get("/broken", headers={"X-Request-Id": "r-1"})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-request-id"] == response.json()["request_id"] == "r-1"
        assert requests(metrics, "/broken", "GET", "500") == 1
        assert tracebacks(caplog) == 1

    async def test_in_the_middle_of_a_response_leaves_it_incomplete_and_is_counted(
        self, app: FastAPI, metrics: Metrics, caplog: pytest.LogCaptureFixture
    ) -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": "/half", "headers": []}
        caplog.set_level(logging.INFO)
        await app({**scope, "query_string": b"", "asgi": {"spec_version": "2.4"}}, receive, send)
        assert [message.get("status") for message in sent] == [200, None]
        assert sent[-1]["more_body"]
        assert requests(metrics, "/half", "GET", "500") == 1
        assert tracebacks(caplog) == 1


class Refusing:
    """A door that lets nobody in."""

    def __init__(self, app: ASGIApp) -> None:
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem_response(Overloaded(retry_after_ms=1), None)(scope, receive, send)


class TestTheLog:
    @pytest.mark.parametrize(
        ("method", "path", "told"),
        [
            ("PUT", "/ads/Ad-7", "/ads/Ad-7"),
            ("GET", "/ads/Ad-7", None),
            ("DELETE", "/users/bob/data", None),
        ],
    )
    async def test_names_the_caller_and_whose_account_was_changed(
        self,
        metrics: Metrics,
        caplog: pytest.LogCaptureFixture,
        method: str,
        path: str,
        told: str | None,
    ) -> None:
        secret, key = new_key("operator", frozenset({KeyScope.ADMIN}))
        settings, life = Settings(), Life()
        app = FastAPI()
        app.add_middleware(Door, settings=settings, keys=(key,), metrics=metrics, life=life)
        app.add_middleware(Access, metrics=metrics)
        caplog.set_level(logging.INFO, "service.access")
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            await http.request(method, path, headers={"Authorization": f"Bearer {secret}"})
        [entry] = [vars(record) for record in caplog.records if record.name == "service.access"]
        assert entry["caller"] == "operator"
        assert entry.get("path") == told


class TestRefusedAtTheDoor:
    @pytest.mark.parametrize(
        ("path", "route"), [("/ads/Ad-7", "/ads/{ad_id}"), ("/nowhere", "unmatched")]
    )
    async def test_is_counted_under_the_route_asked_for(
        self, metrics: Metrics, path: str, route: str
    ) -> None:
        app = FastAPI()

        @app.put("/ads/{ad_id}")
        async def put() -> None:
            raise AssertionError("refused before")

        app.add_middleware(Refusing)
        app.add_middleware(Access, metrics=metrics)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            await http.put(path)
        assert requests(metrics, route, "PUT", "503") == 1
