"""A script that the server keeps: sent once, and named by its hash from then on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


@dataclass(frozen=True)
class Script:
    """`source`: Lua."""

    source: str

    @cached_property
    def _name(self) -> str:
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """What the script returns; in one round trip, but for the first one on a server."""
        try:
            return await redis.evalsha(self._name, len(keys), *keys, *arguments)
        except NoScriptError:  # the server has been started since
            return await redis.eval(self.source, len(keys), *keys, *arguments)
