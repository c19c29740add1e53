"""The door around a small application: keys, sizes, the bound, and clients that leave."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.auth import ApiKey, new_key
from service.api.auth import Scope as KeyScope
from service.api.door import Door
from service.life import Life
from service.metrics import create_metrics
from service.settings import HttpSettings, LimitSettings, Settings


class Application:
    """Answers with the body it was sent, once `release` is set; notes when it is cancelled, and
    then ends once `cleaned` is set."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.arrivals = asyncio.Semaphore(0)
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cleaned = asyncio.Event()
        self.cleaned.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        self.arrivals.release()
        try:
            body = (await receive())["body"]
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.cleaned.wait()
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def door(inner: Application, keys: tuple[ApiKey, ...] = (), life: Life | None = None) -> Door:
    settings = Settings(
        http=HttpSettings(max_body_bytes=1024), limits=LimitSettings(max_requests=2)
    )
    return Door(inner, settings, keys, create_metrics(), life or Life())


@asynccontextmanager
async def client(app: Door) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def inner() -> Application:
    application = Application()
    application.release.set()
    return application


async def test_a_request_counts_from_when_it_is_whole(inner: Application) -> None:
    """A client's slow sending is not the service's time."""
    messages: list[Message] = [
        {"type": "http.request", "body": b"second"},
        {"type": "http.request", "body": b"first", "more_body": True},
    ]
    read_at: list[float] = []

    async def receive() -> Message:
        read_at.append(monotonic())
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: Message) -> None: ...

    scope: Scope = {"type": "http", "method": "POST", "path": "/respond", "headers": []}
    await door(inner)(scope, receive, send)
    assert scope["state"]["received_at"] >= read_at[1]


class TestKeys:
    async def test_a_key_opens_what_its_scope_covers(self, inner: Application) -> None:
        secret, key = new_key("frontend", frozenset({KeyScope.RESPOND}))
        headers = {"Authorization": f"Bearer {secret}"}
        async with client(door(inner, (key,))) as http:
            assert (await http.post("/respond", headers=headers, content=b"hi")).text == "hi"
            assert (await http.get("/ads", headers=headers)).json()["code"] == "forbidden"
            refused = await http.post("/respond", content=b"hi")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"

    async def test_probes_need_no_key(self, inner: Application) -> None:
        _, key = new_key("frontend", frozenset({KeyScope.RESPOND}))
        async with client(door(inner, (key,))) as http:
            assert (await http.get("/healthz")).status_code == 200


class TestBody:
    async def test_up_to_the_limit_passes(self, inner: Application) -> None:
        async with client(door(inner)) as http:
            assert (await http.post("/respond", content=b"x" * 1024)).status_code == 200
            assert (await http.post("/respond", content=b"x" * 1025)).status_code == 413

    async def test_a_body_of_unannounced_length_is_counted(self, inner: Application) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        async with client(door(inner)) as http:
            response = await http.post("/respond", content=chunks())
        assert response.status_code == 413
        assert not inner.entered.is_set()


class TestBound:
    async def test_the_third_is_refused_and_the_first_two_finish(self) -> None:
        inner = Application()
        app = door(inner)
        async with client(app) as http:
            two = [asyncio.create_task(http.post("/respond", content=b"hi")) for _ in range(2)]
            for _ in two:
                await inner.arrivals.acquire()
            third = await http.post("/respond", content=b"hi")
            inner.release.set()
            responses = await asyncio.gather(*two)
            after = await http.post("/respond", content=b"hi")
        assert third.status_code == 503
        assert third.headers["retry-after"] == "1"
        assert [response.status_code for response in (*responses, after)] == [200, 200, 200]

    async def test_other_paths_are_not_bounded(self) -> None:
        inner = Application()
        async with client(door(inner)) as http:
            many = [asyncio.create_task(http.get("/readyz")) for _ in range(5)]
            for _ in many:
                await inner.arrivals.acquire()
            inner.release.set()
            assert all(r.status_code == 200 for r in await asyncio.gather(*many))

    async def test_a_draining_server_takes_no_more(self, inner: Application) -> None:
        async with client(door(inner, life=Life(is_draining=True))) as http:
            assert (await http.post("/respond", content=b"")).json()["code"] == "draining"


class TestDisconnect:
    async def call(self, app: Door, incoming: "asyncio.Queue[Message]") -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/respond",
            "headers": [],
            "query_string": b"",
        }
        await app(scope, incoming.get, send)
        return sent

    async def test_a_client_that_leaves_cancels_its_request(self) -> None:
        inner, incoming = Application(), asyncio.Queue[Message]()
        app = door(inner)
        incoming.put_nowait({"type": "http.request", "body": b"hi", "more_body": False})
        call = asyncio.create_task(self.call(app, incoming))
        await inner.entered.wait()
        assert app.in_flight == 1
        incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(inner.cancelled.wait(), 1)
        assert await call == []
        assert app.in_flight == 0

    async def test_a_task_whose_client_left_does_not_stay_cancelled(self) -> None:
        """Else a timeout around it would take the client's leaving for its own."""
        inner, incoming = Application(), asyncio.Queue[Message]()
        incoming.put_nowait({"type": "http.request", "body": b"hi", "more_body": False})
        incoming.put_nowait({"type": "http.disconnect"})
        await self.call(door(inner), incoming)
        assert inner.cancelled.is_set()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_a_cancelled_request_ends_when_it_has_cleaned_up(self) -> None:
        inner, incoming = Application(), asyncio.Queue[Message]()
        inner.cleaned.clear()
        incoming.put_nowait({"type": "http.request", "body": b"hi", "more_body": False})
        app = door(inner)
        call = asyncio.create_task(self.call(app, incoming))
        await inner.entered.wait()
        call.cancel()
        await asyncio.wait_for(inner.cancelled.wait(), 1)
        assert app.in_flight == 1
        inner.cleaned.set()
        await asyncio.wait({call})
        assert call.cancelled()
        assert app.in_flight == 0

    async def test_one_that_leaves_after_the_answer_cancels_nothing(self) -> None:
        inner, incoming = Application(), asyncio.Queue[Message]()
        inner.release.set()
        incoming.put_nowait({"type": "http.request", "body": b"hi", "more_body": False})
        sent = await self.call(door(inner), incoming)
        assert sent[-1]["body"] == b"hi"
        assert not inner.cancelled.is_set()

    async def test_one_that_leaves_in_the_middle_of_its_body_starts_nothing(self) -> None:
        inner, incoming = Application(), asyncio.Queue[Message]()
        incoming.put_nowait({"type": "http.request", "body": b"hi", "more_body": True})
        incoming.put_nowait({"type": "http.disconnect"})
        assert await self.call(door(inner), incoming) == []
        assert not inner.entered.is_set()


def test_problems_are_rfc_9457(inner: Application) -> None:
    async def ask() -> Any:
        async with client(door(inner)) as http:
            return await http.post("/respond", content=b"x" * 2000)

    response = asyncio.run(ask())
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "code"} <= set(json.loads(response.text))
