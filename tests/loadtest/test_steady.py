"""A steady load tells answers from failures, whatever kind of failure."""

import json
import time
from itertools import count

import httpx

from loadtest.steady import ASK, keep_busy


async def test_every_answer_and_every_failure_is_counted_once() -> None:
    numbers = count()

    def answer(request: httpx.Request) -> httpx.Response:
        number = next(numbers)
        if number % 4 == 1:
            raise httpx.ReadError("gone")
        if number % 4 == 2:
            return httpx.Response(503, json={"code": "overloaded"})
        if number % 4 == 3:
            return httpx.Response(500, text="Internal Server Error")
        return httpx.Response(200, json={"ads": []})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        tally = await keep_busy(client, ASK, clients=3, until=time.monotonic() + 0.2)
    asked = next(numbers)
    assert asked > 8
    assert len(tally.seconds) + len(tally.failures) == asked
    assert {what for _, what in tally.failures} == {
        "/respond: ReadError",
        "/respond: 503 overloaded",
        "/respond: 500 'Internal Server Error'",
    }


async def test_ads_are_clicked_on_with_their_tokens() -> None:
    clicked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/respond":
            return httpx.Response(200, json={"ads": [{"click_url": "http://test/c/token-7"}]})
        clicked.append(json.loads(request.content)["token"])
        return httpx.Response(200, json={"state": "charged"})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        tally = await keep_busy(client, ASK, 1, time.monotonic() + 0.05, click_share=1)
    assert tally.clicks == {"charged": len(tally.seconds)}
    assert set(clicked) == {"token-7"}


async def test_after_the_end_nothing_is_asked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("asked after the end")

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        tally = await keep_busy(client, ASK, clients=2, until=time.monotonic() - 1)
    assert not tally.seconds
    assert not tally.failures
