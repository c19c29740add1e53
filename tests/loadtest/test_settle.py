"""The measuring of settled clicks: all of them, so many at once, and each one charged."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loadtest.own_service import OwnService
from loadtest.settle import per_second, report_clicks, spread, time_charges


async def test_all_are_done_and_so_many_at_once() -> None:
    running, most, done = 0, 0, []

    async def one(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(item)

    assert await per_second(one, list(range(100)), at_once=7) > 0
    assert most == 7
    assert sorted(done) == list(range(100))


async def test_charges_and_bare_scripts_are_timed_in_each_round(tmp_path: Path) -> None:
    options: Any = SimpleNamespace(clicks=20, rounds=2, connections=5)
    rounds: list[None] = []
    found = await time_charges("everysec", options, lambda: rounds.append(None))
    assert len(found) == len(rounds) == 2
    assert all(bare > 0 and charged > 0 for bare, charged in found)


@asynccontextmanager
async def answering(state: Callable[[str], str]) -> AsyncIterator[OwnService]:
    """A server that answers clicks with the `state` of their tokens."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            click = json.loads(await reader.readexactly(length))
            body = json.dumps({"state": state(click["token"])}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    server = await asyncio.start_server(answer, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield cast(OwnService, SimpleNamespace(url=url))


async def test_clicks_over_http_must_be_charged() -> None:
    async with answering(lambda token: "charged") as service:
        assert await report_clicks(service, map(str, range(30)), at_once=4) > 0
    async with answering(lambda token: "charged" if token != "7" else "expired") as service:
        with pytest.raises(RuntimeError, match="expired"):
            await report_clicks(service, map(str, range(30)), at_once=4)


def test_a_spread_is_median_least_and_greatest() -> None:
    assert spread([3_000, 1_000, 1_500]) == "1,500 (1,000–3,000)"
    assert spread([0.5, 0.7], ".2f") == "0.60 (0.50–0.70)"
