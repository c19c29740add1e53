"""Clients that measure, against a server whose answers are known."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer as LocalServer

from loadtest.bench.clients import Timing, at_rate, for_seconds, open_session, stream, together

SERVICE = (
    b'event: text\ndata: {"type":"text","text":"Try"}\n\n',
    b'event: done\ndata: {"answer":"Try","usage":{"completion_tokens":7}}\n\n',
)
VLLM = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Try"}}]}\n\n',
    b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n',
    b"data: [DONE]\n\n",
)


class Server:
    """`/service` and `/vllm` stream all but the last part, then wait for `go`; `/json` answers."""

    def __init__(self) -> None:
        self.go, self.has_begun = asyncio.Event(), asyncio.Event()
        self.running = self.most_running = self.answered = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/{kind:service|vllm}", self.stream)
        app.router.add_post("/json", self.json)
        return app

    async def stream(self, request: web.Request) -> web.StreamResponse:
        parts = SERVICE if request.match_info["kind"] == "service" else VLLM
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts[:-1]:
            await response.write(part)
        self.has_begun.set()
        await self.go.wait()
        await response.write(parts[-1])
        return response

    async def json(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.answered += 1
        return web.json_response({"usage": {"completion_tokens": 3}})


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str, aiohttp.ClientSession]]:
    server = Server()
    async with LocalServer(server.app()) as local, open_session() as session:
        yield server, str(local.make_url("/")).rstrip("/"), session


Given = tuple[Server, str, aiohttp.ClientSession]


class TestStream:
    @pytest.mark.parametrize("path", ["service", "vllm"])
    async def test_times_the_first_text_and_the_end_apart(self, server: Given, path: str) -> None:
        serving, url, session = server
        asked = asyncio.create_task(stream(session, f"{url}/{path}", {}))
        await serving.has_begun.wait()
        await asyncio.sleep(0.05)  # the time that is to be seen
        serving.go.set()
        timing = await asked
        assert timing.tokens == 7
        assert timing.ttft_s < timing.total_s - 0.04

    def test_the_first_token_is_not_counted_into_the_time_per_token(self) -> None:
        assert Timing(ttft_s=1.0, total_s=3.0, tokens=5).tpot_s == 0.5


class TestTogether:
    async def test_keeps_to_the_concurrency_and_adds_the_tokens_up(self, server: Given) -> None:
        serving, url, session = server
        run = await together(session, f"{url}/json", [{}] * 20, concurrency=4)
        assert serving.answered == 20
        assert serving.most_running <= 4
        assert run.tokens_per_s == pytest.approx(60 / run.seconds)

    async def test_a_refusal_is_no_figure(self, server: Given) -> None:
        _, url, session = server
        with pytest.raises(aiohttp.ClientResponseError):
            await together(session, f"{url}/nothing", [{}], concurrency=1)


async def test_for_seconds_goes_on_until_then(server: Given) -> None:
    serving, url, session = server
    run = await for_seconds(session, f"{url}/json", [{}], concurrency=2, seconds=0.1)
    assert 0.1 <= run.seconds < 1
    assert len(run.timings) == serving.answered > 2


async def test_at_rate_asks_that_often_on_average(server: Given) -> None:
    serving, url, session = server
    spent_s = await at_rate(session, f"{url}/json", [{}], per_s=200, seconds=0.3)
    assert 30 < len(spent_s) == serving.answered < 90
    assert all(0 < seconds < 1 for seconds in spent_s)
