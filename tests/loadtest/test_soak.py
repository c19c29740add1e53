"""What a soak calls growth, and what it calls wrong."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from loadtest.bench.clients import open_session
from loadtest.bench.prompts import own_ads
from loadtest.soak import Crowd, Sample, judge
from loadtest.traffic import Click, Habits, Visitor

STEADY = [
    Sample(at_s=5.0 * n, memory_mib=100 + n % 3, descriptors=40 + n % 5, lag_ms=1.0,
           store_mib=10 + 0.5 * n, answers=100 * n)
    for n in range(60)
]  # fmt: skip


def broken(samples: list[Sample]) -> set[str]:
    return {finding.name for finding in judge(samples) if not finding.is_kept}


def test_a_steady_service_whose_store_keeps_receipts_passes() -> None:
    assert broken(STEADY) == set()


def test_what_grows_during_the_warm_up_is_no_leak() -> None:
    warming = [replace(s, memory_mib=50.0) if s.at_s < 50 else s for s in STEADY]
    assert broken(warming) == set()


@pytest.mark.parametrize(
    ("name", "slope", "quantity"),
    [
        ("memory_mib", 1.0, "memory of the service, MiB"),
        ("descriptors", 1, "file descriptors"),
        ("lag_ms", 0.5, "event loop's lag, ms"),
    ],
)
def test_what_grows_is_named(name: str, slope: float, quantity: str) -> None:
    growing = [replace(s, **{name: getattr(s, name) + slope * n}) for n, s in enumerate(STEADY)]
    assert broken(growing) == {quantity}


def test_an_answer_that_takes_ever_more_of_the_store_is_named() -> None:
    growing = [replace(s, store_mib=10 + 0.01 * n * n) for n, s in enumerate(STEADY)]
    assert broken(growing) == {"store, KiB an answer"}


def test_too_short_a_run_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        judge(STEADY[:5])


ADS = own_ads(20)


class TestCrowd:
    """Before a server that fails in ways that the service hardly can be made to."""

    @asynccontextmanager
    async def before(self, path: str, status: int, text: str) -> AsyncIterator[tuple[Crowd, Any]]:
        """A crowd, and a semaphore released for each request answered with `text`."""
        asked = asyncio.Semaphore(0)

        async def answer(_: web.Request) -> web.Response:
            asked.release()
            return web.Response(text=text, status=status, content_type="application/json")

        app = web.Application()
        app.add_routes([web.post(path, answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with open_session() as session, asyncio.timeout(10):
                yield Crowd(session, f"http://127.0.0.1:{runner.addresses[0][1]}", ADS), asked
        finally:
            await runner.cleanup()

    async def test_a_stream_that_breaks_off_is_wrong_and_its_reader_asks_again(self) -> None:
        habits = Habits(streamed=1.0, hang_up=0.0, think_s=0.001)
        text = 'event: error\ndata: {"status": 503}\n\n'
        async with self.before("/respond", 200, text) as (crowd, asked):
            crowd.come(Visitor(random.Random(1), ADS, habits))
            for _ in range(3):
                await asked.acquire()
            await crowd.leave()
        assert set(crowd.wrong) == {"a stream that broke off"}

    @pytest.mark.parametrize(
        ("status", "text", "said"),
        [(500, "{}", "clicks status 500"), (200, '{"state": "invalid"}', "clicks invalid")],
    )
    async def test_a_click_that_is_not_settled_is_wrong(
        self, status: int, text: str, said: str
    ) -> None:
        async with self.before("/v1/clicks", status, text) as (crowd, _):
            await crowd._click(Click(0.0, "/c/token", is_browser=False))
        assert crowd.wrong == Counter([said])

    async def test_whatever_ends_a_visitor_is_wrong(self) -> None:
        async with self.before("/respond", 200, "no JSON") as (crowd, _):
            crowd.come(Visitor(random.Random(1), ADS, Habits(streamed=0.0)))
            await asyncio.wait(crowd._tasks)
        assert [name.partition(":")[0] for name in crowd.wrong] == ["JSONDecodeError"]
