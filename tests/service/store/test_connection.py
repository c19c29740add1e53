import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis

from service.settings import StoreSettings
from service.store.connection import Breaker, Store, StoreUnavailable, open_store

Eventually = Callable[..., Awaitable[None]]
ValkeyPid = Callable[[Store], Awaitable[int]]


class TestBreaker:
    def test_opens_after_failures_in_a_row_only(self) -> None:
        breaker = Breaker(failures=3)
        for _ in range(2):
            breaker.failed()
        breaker.succeeded()
        for _ in range(2):
            breaker.failed()
        assert not breaker.is_open
        breaker.failed()
        assert breaker.is_open

    def test_one_success_closes_it(self) -> None:
        breaker = Breaker(failures=1)
        breaker.failed()
        assert breaker.is_open
        breaker.succeeded()
        assert not breaker.is_open


class TestFrozenStore:
    """A store that takes connections and says nothing: the worst kind of away."""

    async def test_costs_a_timeout_first_and_then_nothing_until_it_thaws(
        self, own_store: Store, valkey_pid: ValkeyPid, eventually: Eventually
    ) -> None:
        pid = await valkey_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = monotonic()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await own_store.run(lambda redis: redis.get("key"))
            assert monotonic() - begun < 2
            assert not own_store.is_up

            begun = monotonic()
            for _ in range(1_000):
                with pytest.raises(StoreUnavailable):
                    await own_store.run(lambda redis: redis.get("key"))
            assert monotonic() - begun < 0.5
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: own_store.is_up)
        assert await own_store.run(lambda redis: redis.get("key")) is None

    async def test_is_noticed_without_any_request(
        self, own_store: Store, valkey_pid: ValkeyPid, eventually: Eventually
    ) -> None:
        pid = await valkey_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: not own_store.is_up)
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: own_store.is_up)


async def test_many_answers_that_are_each_in_time_are_slow_together(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while commands := await reader.read(4096):
                for _ in range(commands.count(b"*")):
                    if b"GET" in commands:
                        await asyncio.sleep(0.06)
                    writer.write(b"+OK\r\n")
                    await writer.drain()
        writer.close()

    async def read_much(redis: Redis) -> None:
        pipeline = redis.pipeline(transaction=False)
        for _ in range(50):
            pipeline.get("key")
        await pipeline.execute()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    settings = StoreSettings(url=f"redis://127.0.0.1:{port}", timeout_ms=200)
    async with server, open_store(settings, tmp_path, print) as store:
        assert store.is_up
        begun = monotonic()
        with pytest.raises(StoreUnavailable):
            await store.run(read_much)
        assert monotonic() - begun < 1


async def test_a_server_that_hangs_up_is_not_waited_for(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (commands := await reader.read(4096)) and b"GET" not in commands:
            writer.write(b"+OK\r\n" * commands.count(b"*"))
        writer.write(b"$5\r\nhal")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    settings = StoreSettings(url=f"redis://127.0.0.1:{port}", timeout_ms=10_000)
    async with server, open_store(settings, tmp_path, print) as store:
        begun = monotonic()
        with pytest.raises(StoreUnavailable):
            await store.run(lambda redis: redis.get("key"))
        assert monotonic() - begun < 5
        await store.ping()


async def test_a_connection_that_the_server_closed_is_made_again(
    store: Store, namespace: str
) -> None:
    await asyncio.gather(*(store.run(lambda redis: redis.get(namespace)) for _ in range(5)))
    await store.run(lambda redis: redis.execute_command("CLIENT", "KILL", "TYPE", "normal"))
    await asyncio.sleep(0.05)
    for _ in range(5):
        assert await store.run(lambda redis: redis.get(namespace)) is None


async def test_a_refused_command_does_not_open_the_breaker(store: Store, namespace: str) -> None:
    await store.run(lambda redis: redis.set(namespace, "text"))
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            await store.run(lambda redis: redis.hget(namespace, "field"))
    assert store.is_up


async def test_a_cancelled_command_leaves_no_answer_for_the_next(
    store: Store, namespace: str
) -> None:
    await store.run(lambda redis: redis.mset({f"{namespace}:{n}": n for n in range(50)}))
    for number in range(50):
        command = asyncio.create_task(store.run(lambda redis: redis.get(f"{namespace}:0")))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        command.cancel()
        key = f"{namespace}:{number}"
        found = await store.run(lambda redis, key=key: redis.get(key))  # type: ignore[misc]
        assert found == str(number).encode()


async def test_a_server_that_is_away_is_no_error_at_the_start(tmp_path: Path) -> None:
    said: list[str] = []
    settings = StoreSettings(url="redis://user:secret@127.0.0.1:1/0", breaker_failures=1)
    async with open_store(settings, tmp_path, said.append) as away:
        assert not away.is_up
        with pytest.raises(StoreUnavailable):
            await away.run(lambda redis: redis.get("key"))
    (line,) = said
    assert "127.0.0.1:1 does not answer" in line
    assert "secret" not in line
    assert os.listdir(tmp_path) == []


async def test_a_url_of_something_else_is_refused(tmp_path: Path) -> None:
    settings = StoreSettings.model_construct(
        **{**StoreSettings().model_dump(), "url": "postgres://h/"}
    )
    with pytest.raises(ValueError, match="redis://"):
        async with open_store(settings, tmp_path, print):
            pass


async def test_more_commands_than_connections_wait_for_their_turn(
    store: Store, namespace: str
) -> None:
    def count(redis: Redis) -> Awaitable[int]:
        return redis.incr(namespace)

    counted = await asyncio.gather(*(store.run(count) for _ in range(1_000)))
    assert sorted(counted) == list(range(1, 1_001))
    clients = await store.run(lambda redis: redis.info("clients"))
    assert clients["connected_clients"] <= 130
