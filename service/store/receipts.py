"""Receipts by response, and which of them are a user's.

Keys, in the catalogue's hash slot; all go by themselves when the retention ends:

    {ns}:receipt:<response_id>  the signed receipt, compressed (zlib); empty once it was erased
    {ns}:receipts:<user>        sorted set of a user's response ids by time, epoch milliseconds

An erased receipt leaves an empty value, so that the ledger can be checked: there was one.
"""

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import methodcaller
from typing import Any

from redis.asyncio import Redis

from service.store.connection import Store

_CHUNK = 100
_FASTEST = 1
_WINDOW_BITS = 12
_MEMORY_LEVEL = 5
"""Makes a receipt a third to a fifth as long. With zlib's ordinary window a compressor takes and
clears a quarter of a megabyte, which costs more than to compress."""

_SAVE = """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
if KEYS[2] then
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
"""
"""One command for all: each that travels alone costs this process as much as packing a receipt."""

_ERASE = """
local held = redis.call('GET', KEYS[1])
if not held or held == '' then return 0 end
redis.call('SET', KEYS[1], '', 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
return 1
"""


class Receipts:
    """Every method raises StoreUnavailable. `user`: a pseudonym, see service/receipt.py.

    retention_s: how long receipts are kept.
    """

    def __init__(self, store: Store, namespace: str, retention_s: int) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}:"
        self.retention_s = retention_s

    async def save(
        self,
        response_id: str,
        signed: bytes,
        user: str | None,
        at: datetime,
        *also: Callable[[Redis], Any],
    ) -> list[Any]:
        """Keep a signed receipt, and do what else the answer leaves behind, all or nothing.

        also: each puts its commands on the pipeline that it is given; one round trip takes all.
        Returns what these commands gave, in their order.
        """

        packed, at_ms = _pack(signed), int(at.timestamp() * 1000)
        keys = [self._receipt_key(response_id)]
        if user is not None:
            keys.append(self._user_key(user))
        retention_s = self.retention_s
        arguments = (retention_s, response_id, at_ms, at_ms - retention_s * 1000)

        async def write(redis: Redis) -> list[Any]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.eval(_SAVE, len(keys), *keys, packed, *arguments)
            for command in also:
                command(pipeline)
            return list((await pipeline.execute())[1:])

        return await self._store.run(write)

    async def get(self, response_id: str) -> bytes | None:
        """The signed receipt; None where there is none or it was erased."""
        return (await self.get_many([response_id]))[0]

    async def get_many(self, response_ids: Sequence[str]) -> list[bytes | None]:
        """The signed receipts in the order of `response_ids`, in one round trip."""
        return [zlib.decompress(held) if held else None for held in await self._read(response_ids)]

    async def missing(self, response_ids: Sequence[str]) -> list[str]:
        """Those that never had a receipt, or whose time is over; erased ones are not missing."""
        held = await self._read(response_ids)
        return [
            response_id
            for response_id, value in zip(response_ids, held, strict=True)
            if value is None
        ]

    async def erase(self, response_id: str) -> bool:
        """Erase a receipt with all that it holds; whether there was one."""
        return await self._erase([response_id]) == 1

    async def of_user(self, user: str) -> list[str]:
        """The ids of a user's responses, oldest first; some may have no receipt any more."""
        found: dict[bytes, None] = {}
        # From the end: what is added meanwhile brings some again, and what expires hides none.
        while some := await self._page(user, len(found), is_from_end=True):
            found |= dict.fromkeys(some)
        return [response_id.decode() for response_id in reversed(found)]

    async def erase_user(self, user: str) -> int:
        """Erase all receipts of a user, and that they were this user's; how many there were."""
        erased = 0
        while some := await self._page(user, 0):
            erased += await self._erase([response_id.decode() for response_id in some])
            # a part at a time: what is saved meanwhile stays, and an interruption can be resumed
            await self._store.run(methodcaller("zrem", self._user_key(user), *some))
        return erased

    async def _page(self, user: str, start: int, *, is_from_end: bool = False) -> list[bytes]:
        """Ids by rank. A part at a time: all of a busy user's would take longer than a command of
        the store may."""
        read = methodcaller(
            "zrange", self._user_key(user), start, start + _CHUNK - 1, desc=is_from_end
        )
        found: list[bytes] = await self._store.run(read)
        return found

    async def _read(self, response_ids: Sequence[str]) -> list[bytes | None]:
        if not response_ids:
            return []
        keys = [self._receipt_key(response_id) for response_id in response_ids]
        return await self._store.run(methodcaller("mget", keys))

    async def _erase(self, response_ids: Sequence[str]) -> int:
        async def write(redis: Redis) -> int:
            pipeline = redis.pipeline(transaction=False)
            for response_id in response_ids:
                pipeline.eval(_ERASE, 1, self._receipt_key(response_id))
            return sum(await pipeline.execute())

        return await self._store.run(write)

    def _receipt_key(self, response_id: str) -> str:
        return f"{self._prefix}receipt:{response_id}"

    def _user_key(self, user: str) -> str:
        return f"{self._prefix}receipts:{user}"


def _pack(signed: bytes) -> bytes:
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return packer.compress(signed) + packer.flush()
