"""Which user was shown which ads lately: what frequency caps count.

Key, in the catalogue's hash slot: `{ns}:shown:<user>`, a sorted set of `<ad_id>\\x1f<response_id>`
by epoch milliseconds, forgotten with its window. A user is a pseudonym that the caller has hashed.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import methodcaller
from typing import Any

from redis.asyncio import Redis

from service.store.connection import Store

MAX_SHOWINGS = 1_000
"""Showings kept for a user, the latest: whoever shares one id cannot fill the store."""

_SHOW = """
local key, at, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 4, #ARGV do redis.call('ZADD', key, at, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', at - window))
redis.call('ZREMRANGEBYRANK', key, 0, -1 - tonumber(ARGV[3]))
redis.call('PEXPIRE', key, ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user and the begin of the window that counts, in epoch milliseconds."""

    user: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Showing:
    """One ad in one answer. `at_ms`: epoch milliseconds."""

    ad_id: str
    response_id: str
    at_ms: int


class Showings:
    """Methods that are awaited raise StoreUnavailable. `window_s`: the cap's window, in seconds."""

    def __init__(self, store: Store, namespace: str, window_s: int) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}:shown:"
        self._window_ms = window_s * 1000

    def viewer(self, user: str, now: datetime) -> Viewer:
        """`user` as the catalogue counts for them at `now` (aware)."""
        return Viewer(user, _epoch_ms(now) - self._window_ms)

    def command(
        self, redis: Redis, user: str, response_id: str, ad_ids: Sequence[str], at: datetime
    ) -> Awaitable[Any]:
        """The command that notes what an answer has shown; on a pipeline it travels with others.

        Sent twice it counts once.
        """
        members = [f"{ad_id}\x1f{response_id}" for ad_id in ad_ids]
        arguments: tuple[str | int, ...] = (_epoch_ms(at), self._window_ms, MAX_SHOWINGS, *members)
        return redis.eval(_SHOW, 1, self._prefix + user, *arguments)

    async def read(self, user: str) -> list[Showing]:
        """All that is known of what a user was shown, the oldest first."""
        read = methodcaller("zrange", self._prefix + user, 0, -1, withscores=True)
        found: list[tuple[bytes, float]] = await self._store.run(read)
        places = ((raw.decode().split("\x1f"), at) for raw, at in found)
        return [Showing(ad_id, response_id, int(at)) for (ad_id, response_id), at in places]

    async def erase(self, user: str) -> bool:
        """Forget what a user was shown; whether there was anything."""
        return bool(await self._store.run(lambda redis: redis.delete(self._prefix + user)))


def _epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
