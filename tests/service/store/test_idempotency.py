import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.store.connection import Store, StoreUnavailable
from service.store.idempotency import (
    UNHEARD_MS,
    Claim,
    Conflict,
    IdempotencyStore,
    InProgress,
    Replay,
)

LOCK_MS = 60_000


@pytest.fixture
def keys(store: Store, namespace: str) -> IdempotencyStore:
    return IdempotencyStore(store, namespace, ttl_s=3600)


async def claimed(keys: IdempotencyStore, key: str = "key", lock_ms: int = LOCK_MS) -> Claim:
    outcome = await keys.begin("caller", key, "body", lock_ms)
    assert isinstance(outcome, Claim)
    return outcome


async def test_of_twenty_at_once_one_makes_the_answer(keys: IdempotencyStore) -> None:
    begun = (keys.begin("caller", "key", "body", LOCK_MS) for _ in range(20))
    outcomes = await asyncio.gather(*begun)
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    assert outcomes.count(InProgress()) == 19


async def test_a_finished_key_replays_what_was_stored(keys: IdempotencyStore) -> None:
    assert await keys.finish(await claimed(keys), '{"answer": "né"}')
    assert await keys.begin("caller", "key", "body", LOCK_MS) == Replay('{"answer": "né"}')


async def test_another_body_conflicts_before_and_after(keys: IdempotencyStore) -> None:
    claim = await claimed(keys)
    assert await keys.begin("caller", "key", "other", LOCK_MS) == Conflict()
    await keys.finish(claim, "stored")
    assert await keys.begin("caller", "key", "other", LOCK_MS) == Conflict()


async def test_callers_do_not_meet(keys: IdempotencyStore) -> None:
    await claimed(keys)
    assert isinstance(await keys.begin("another", "key", "other", LOCK_MS), Claim)


async def test_a_released_key_can_be_used_anew(keys: IdempotencyStore) -> None:
    assert await keys.release(await claimed(keys))
    assert isinstance(await keys.begin("caller", "key", "other", LOCK_MS), Claim)


async def test_only_its_holder_finishes_or_releases_a_claim(keys: IdempotencyStore) -> None:
    claim = await claimed(keys)
    stranger = Claim(claim.store_key, "guess")
    assert not await keys.finish(stranger, "forged")
    assert not await keys.release(stranger)
    assert await keys.begin("caller", "key", "body", LOCK_MS) == InProgress()


async def test_a_finished_key_can_no_longer_be_released(keys: IdempotencyStore) -> None:
    claim = await claimed(keys)
    await keys.finish(claim, "stored")
    assert not await keys.release(claim)
    assert not await keys.finish(claim, "other")
    assert await keys.begin("caller", "key", "body", LOCK_MS) == Replay("stored")


async def test_a_claim_whose_holder_died_becomes_void(keys: IdempotencyStore, store: Store) -> None:
    lost = await claimed(keys, lock_ms=1)

    async def is_void() -> bool:
        return not await store.run(lambda redis: redis.exists(lost.store_key))

    async with asyncio.timeout(5):
        while not await is_void():
            pass
    fresh = await claimed(keys)
    assert not await keys.finish(lost, "late")
    assert await keys.finish(fresh, "stored")


async def test_a_claim_that_nobody_heard_of_is_soon_void(
    store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = IdempotencyStore(store, namespace, ttl_s=3600)
    run = store.run

    async def too_slow(command: Callable[[Any], Awaitable[Any]]) -> None:
        await run(command)
        raise StoreUnavailable

    monkeypatch.setattr(store, "run", too_slow)
    with pytest.raises(StoreUnavailable):
        await keys.begin("caller", "key", "body", LOCK_MS)
    monkeypatch.undo()
    assert await keys.begin("caller", "key", "body", LOCK_MS) == InProgress()
    (name,) = await store.run(lambda redis: redis.keys(f"{{{namespace}}}:idempotency:*"))
    assert 0 < await store.run(lambda redis: redis.pttl(name)) <= UNHEARD_MS


async def test_what_is_stored_is_kept_for_its_time(keys: IdempotencyStore, store: Store) -> None:
    claim = await claimed(keys)
    held = await store.run(lambda redis: redis.pttl(claim.store_key))
    assert 0 < held <= LOCK_MS
    await keys.finish(claim, "stored")
    kept = await store.run(lambda redis: redis.pttl(claim.store_key))
    assert 3_500_000 < kept <= 3_600_000
