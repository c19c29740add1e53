"""The way to the store: bounded in time, and out of the way while the store is away.

Every command runs through `Store.run`. It takes at most the time-out, and after a few failures in
a row a circuit breaker opens: further commands fail at once. A watcher pings the store all the
while, so the breaker closes by itself and no request ever pays for finding out.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.settings import StoreSettings
from service.store.client import MAX_COMMANDS, open_client
from service.store.embedded import run_embedded
from service.store_url import StoreUrl

log = logging.getLogger(__name__)
T = TypeVar("T")

_AWAY = (RedisConnectionError, RedisTimeoutError, ClusterDownError, OSError, TimeoutError)


class StoreUnavailable(Exception):
    """The store is away, too slow, or refused a command. Nothing is known of its effect."""


class Breaker:
    """Opens after `failures` failures in a row; one success closes it."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._failed_in_a_row = 0

    @property
    def is_open(self) -> bool:
        """Whether commands should not even be tried."""
        return self._failed_in_a_row >= self.failures

    def succeeded(self) -> None:
        """The store answered."""
        if self.is_open:
            log.info("the ad store answers again")
        self._failed_in_a_row = 0

    def failed(self) -> None:
        """The store did not answer."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row == self.failures:
            log.warning("the ad store does not answer")


class Store:
    """A connected store. `timeout_s` bounds every command, the wait for its turn included."""

    def __init__(self, redis: Redis, breaker: Breaker, timeout_s: float) -> None:
        self._redis = redis
        self._breaker = breaker
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(MAX_COMMANDS)

    @property
    def is_up(self) -> bool:
        """Whether commands are tried; false while the breaker is open."""
        return not self._breaker.is_open

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """What `command` gets from the store.

        Raises StoreUnavailable: at once while the breaker is open, else after the time-out at most.
        """
        if self._breaker.is_open:
            raise StoreUnavailable("the ad store does not answer")
        return await self._try(command)

    async def ping(self) -> None:
        """Ask the store whether it is there, open breaker or not. Raises StoreUnavailable."""
        await self._try(lambda redis: redis.ping())

    async def watch(self, interval_s: float) -> None:
        """Ping every `interval_s`, for ever: the breaker knows the truth without traffic."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.ping()
            except StoreUnavailable:
                continue  # the breaker has counted it

    async def _try(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                result = await command(self._redis)
        except _AWAY as away:
            self._breaker.failed()
            raise StoreUnavailable(
                f"the ad store does not answer ({type(away).__name__})"
            ) from away
        except RedisError as refused:
            # it answered: the breaker is for stores that do not
            log.warning("the ad store refused a command: %s", refused)
            raise StoreUnavailable("the ad store refused a command") from refused
        self._breaker.succeeded()
        return result


@asynccontextmanager
async def open_store(
    settings: StoreSettings, state_dir: Path, progress: Callable[[str], None]
) -> AsyncGenerator[Store]:
    """The store that the settings name, or a Valkey of our own with its data in `state_dir`.

    A store that is away is no error here: commands fail until it is back. Raises StoreUrlError for
    a URL or an option of it that is wrong, EmbeddedError where Valkey cannot be started here.
    """
    timeout_s = settings.timeout_ms / 1000
    async with AsyncExitStack() as stack:
        address = settings.url
        if address is None:
            progress("starting the ad store (Valkey)")
            address = await stack.enter_async_context(
                run_embedded(state_dir / "valkey", settings.fsync)
            )
        url, key = StoreUrl.parse(address), f"{{{settings.namespace}}}"
        redis = await stack.enter_async_context(open_client(url, timeout_s, key))
        store = Store(redis, Breaker(settings.breaker_failures), timeout_s)
        try:
            await store.ping()
        except StoreUnavailable:
            progress(f"the ad store at {url} does not answer: no ads until it does")
        watcher = asyncio.create_task(store.watch(settings.breaker_cooldown_ms / 1000))
        stack.callback(watcher.cancel)
        yield store
