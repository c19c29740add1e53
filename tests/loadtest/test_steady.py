"""A steady load tells answers from failures, whatever kind of failure."""

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
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        tally = await keep_busy(client, ASK, clients=3, until=time.monotonic() + 0.2)
    asked = next(numbers)
    assert asked > 8
    assert len(tally.seconds) + len(tally.failures) == asked
    assert {what for _, what in tally.failures} == {
        "ReadError", "503 overloaded", "500 'Internal Server Error'",
    }  # fmt: skip


async def test_after_the_end_nothing_is_asked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("asked after the end")

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as client:
        tally = await keep_busy(client, ASK, clients=2, until=time.monotonic() - 1)
    assert not tally.seconds
    assert not tally.failures
