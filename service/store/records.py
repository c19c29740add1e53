"""Ads and advertisers as they are kept: JSON in a hash, read and changed by id.

A change is made to what was read, and only where it is still that; so nobody's change is lost.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from redis.asyncio import Redis

from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.auction.money import MAX_BUDGET_UNITS
from service.store.connection import Store

log = logging.getLogger(__name__)
T = TypeVar("T", Ad, Advertiser)

_DECODED = 10_000
_MAX_BUDGET_MICROS = MAX_BUDGET_UNITS * 10**6

_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
"""Replace a record only where it is still the one that was read."""

_SWAP_ONCE = """
if redis.call('HEXISTS', KEYS[2], ARGV[4]) == 1 then return 0 end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
return 1
"""
"""The same, under a reference that was not used before."""


class NothingToTopUp(Exception):
    """There is no total budget: spend has no limit that could be raised."""


class BudgetTooLarge(Exception):
    """The budget would exceed the largest that can be kept."""


class ReferenceConflict(Exception):
    """The reference was used before, for another amount."""


@dataclass(frozen=True, slots=True)
class ToppedUp(Generic[T]):
    """The record after a top-up. `replayed`: the reference's top-up was made before, not now."""

    record: T
    replayed: bool


class Records(Generic[T]):
    """Records of one kind. Every method raises StoreUnavailable.

    Keys, in the deployment's hash slot: `{ns}:<kind>`, a hash of id to JSON; `ids_key`, a sorted
    set of all ids with score 0, so ordered by id; `{ns}:<kind>:top-ups`, a hash of
    `<id>\\x1f<reference>` to micros.
    """

    def __init__(self, store: Store, key: str, ids_key: str, model: type[T]) -> None:
        self._store = store
        self._key = key
        self._ids_key = ids_key
        self._top_ups_key = f"{key}:top-ups"
        self._model: type[T] = model
        # records change far less often than they are read: the same bytes are the same record
        self._decoded: dict[str, tuple[bytes, T]] = {}

    async def get(self, record_id: str) -> T | None:
        """The record, or None where there is none."""
        raw = await self._raw(record_id)
        return None if raw is None else self._read(record_id, raw)

    async def put(self, record: T) -> bool:
        """Save the record; whether it is new."""
        return await self._save([record]) == 1

    async def patch(self, record_id: str, change: Callable[[T], T]) -> T | None:
        """Replace the record by `change` of it, or return None where there is none.

        Where another writer comes between, `change` is called again on what that one wrote.
        """
        while True:
            raw = await self._raw(record_id)
            if raw is None or (record := self._read(record_id, raw)) is None:
                return None
            changed = change(record)
            if await self._eval(_SWAP, (self._key,), record_id, raw, _encode(changed)):
                return changed

    async def top_up(
        self, record_id: str, amount_micros: int, reference: str | None = None
    ) -> ToppedUp[T] | None:
        """Raise the total budget by `amount_micros`, once for each `reference`; None: no record.

        Raises NothingToTopUp, BudgetTooLarge, ReferenceConflict.
        """
        field = f"{record_id}\x1f{reference or secrets.token_hex(16)}"
        keys = (self._key, self._top_ups_key)
        while True:
            raw, done = await self._with_top_up(record_id, field)
            if raw is None or (record := self._read(record_id, raw)) is None:
                return None
            if done is not None:
                if int(done) != amount_micros:
                    raise ReferenceConflict
                return ToppedUp(record, replayed=True)
            raised = _raised(record, amount_micros)
            arguments = (record_id, raw, _encode(raised), field, str(amount_micros))
            if await self._eval(_SWAP_ONCE, keys, *arguments):
                return ToppedUp(raised, replayed=False)

    async def delete(self, record_id: str) -> bool:
        """Remove the record; whether there was one. What it has spent stays on record."""

        async def remove(redis: Redis) -> bool:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hdel(self._key, record_id)
            pipeline.zrem(self._ids_key, record_id)
            removed, _ = await pipeline.execute()
            return bool(removed)

        return await self._store.run(remove)

    async def page(self, cursor: str | None, limit: int) -> tuple[tuple[T, ...], str | None]:
        """Up to `limit` records with ids after `cursor`, and the next cursor; None at the end."""
        after = "-" if cursor is None else f"({cursor}"
        find = methodcaller("zrangebylex", self._ids_key, after, "+", start=0, num=limit + 1)
        found = [raw.decode() for raw in await self._store.run(find)]
        ids = found[:limit]
        if not ids:
            return (), None
        raws: list[bytes | None] = await self._store.run(methodcaller("hmget", self._key, ids))
        records = tuple(record for record in self._read_all(ids, raws) if record is not None)
        return records, ids[-1] if len(found) > limit else None

    async def count(self) -> int:
        """How many records there are."""
        return await self._store.run(lambda redis: redis.zcard(self._ids_key))

    async def _raw(self, record_id: str) -> Any:
        return await self._store.run(lambda redis: redis.hget(self._key, record_id))

    async def _with_top_up(self, record_id: str, field: str) -> tuple[Any, Any]:
        """The record as it is kept, and the amount of this top-up where it was made before."""

        async def read(redis: Redis) -> tuple[Any, Any]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hget(self._key, record_id)
            pipeline.hget(self._top_ups_key, field)
            raw, done = await pipeline.execute()
            return raw, done

        return await self._store.run(read)

    async def _save(self, records: Sequence[T]) -> int:
        """Save all records in one transaction; how many are new."""

        async def write(redis: Redis) -> int:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hset(self._key, mapping={_id(record): _encode(record) for record in records})
            pipeline.zadd(self._ids_key, {_id(record): 0 for record in records})
            _, created = await pipeline.execute()
            return int(created)

        return await self._store.run(write)

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | bytes) -> Any:
        return await self._store.run(lambda redis: redis.eval(script, len(keys), *keys, *arguments))

    def _read_all(self, ids: Iterable[str], raws: Iterable[bytes | None]) -> list[T | None]:
        """The records of these ids, in their order; None where there is no valid one."""
        decoded, records = self._decoded, list[T | None]()
        for record_id, raw in zip(ids, raws, strict=True):
            held = decoded.get(record_id)
            if held is not None and held[0] == raw:
                records.append(held[1])
            else:
                records.append(None if raw is None else self._decode(record_id, raw))
        return records

    def _read(self, record_id: str, raw: bytes) -> T | None:
        return self._read_all([record_id], [raw])[0]

    def _decode(self, record_id: str, raw: bytes) -> T | None:
        try:
            record = self._model.model_validate_json(raw)
        except ValidationError:
            # one damaged record must not take the others away
            log.error("the stored record %s is invalid and left out", record_id)
            return None
        if len(self._decoded) >= _DECODED and record_id not in self._decoded:
            del self._decoded[next(iter(self._decoded))]
        self._decoded[record_id] = raw, record
        return record


def _id(record: Ad | Advertiser) -> str:
    return record.ad_id if isinstance(record, Ad) else record.advertiser_id


def _encode(record: Ad | Advertiser) -> bytes:
    return record.model_dump_json(by_alias=True).encode()


def _raised(record: T, amount_micros: int) -> T:
    total = record.budget.total_micros
    if total is None:
        raise NothingToTopUp
    if total + amount_micros > _MAX_BUDGET_MICROS:
        raise BudgetTooLarge
    budget = record.budget.model_copy(update={"total_micros": total + amount_micros})
    return record.model_copy(update={"budget": budget})
