"""Stores of their own for tests that stop, freeze or kill them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from service.settings import StoreSettings
from service.store.connection import Store, open_store


async def valkey_pid(store: Store) -> int:
    return int((await store.run(lambda redis: redis.info("server")))["process_id"])


async def eventually(condition: Callable[[], bool], within_s: float = 10) -> None:
    """Wait until `condition` holds; what is watched is another process, which tells nobody."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)


@pytest.fixture(name="valkey_pid")
def fixture_valkey_pid() -> Callable[[Store], Awaitable[int]]:
    return valkey_pid


@pytest.fixture(name="eventually")
def fixture_eventually() -> Callable[..., Awaitable[None]]:
    return eventually


@pytest.fixture
async def own_store(tmp_path: Path) -> AsyncGenerator[Store]:
    """Answers within 200 ms or not at all; checked on every 50 ms."""
    settings = StoreSettings(timeout_ms=200, breaker_failures=3, breaker_cooldown_ms=50)
    async with open_store(settings, tmp_path, print) as opened:
        yield opened
