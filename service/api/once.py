"""`Idempotency-Key`: the same key and body give the same answer, generated once.

A second request waits for the first and replays it; another body under the same key is refused.
Where the store does not say whose the key is, the answer has to be given without ads: it is kept
for nobody, and a retry would have its ads charged again.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from service.answer import AdPart, TextPart
from service.api.schemas import RespondResponse
from service.errors import IdempotencyConflict, IdempotencyInProgress
from service.life import Life
from service.store.connection import StoreUnavailable
from service.store.idempotency import Claim, Conflict, IdempotencyStore, InProgress, Replay

log = logging.getLogger(__name__)
_POLL_S = 0.05

Part = TextPart | AdPart | RespondResponse


async def claim_once(
    store: IdempotencyStore, caller: str, key: str, body: bytes, deadline_at: float
) -> Claim | RespondResponse | None:
    """The right to generate under `key`, or the response that was generated under it before.

    None where the store does not tell. Waits for a running first request until `deadline_at`
    (seconds, monotonic). Raises IdempotencyConflict, IdempotencyInProgress.
    """
    body_hash = hashlib.sha256(body).hexdigest()
    lock_ms = int((deadline_at - monotonic()) * 1000) + 30_000
    while True:
        try:
            outcome = await store.begin(caller, key, body_hash, max(lock_ms, 1_000))
        except StoreUnavailable:
            return None
        match outcome:
            case Claim():
                return outcome
            case Replay():
                return RespondResponse.model_validate_json(outcome.stored)
            case Conflict():
                raise IdempotencyConflict("Use a fresh key for a new request")
            case InProgress():
                if monotonic() + _POLL_S > deadline_at:
                    raise IdempotencyInProgress("Ask again later", retry_after_ms=1_000)
                await asyncio.sleep(_POLL_S)


async def fulfil(
    store: IdempotencyStore, claim: Claim, parts: AsyncGenerator[Part], life: Life
) -> AsyncGenerator[Part]:
    """Pass `parts` on, storing the response before it is shown; without one, drop the claim."""
    is_stored = False
    try:
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, RespondResponse):
                    is_stored = True
                    await life.complete(_finish(store, claim, part.model_dump_json()))
                yield part
    finally:
        if not is_stored:
            await life.complete(_release(store, claim))


async def _finish(store: IdempotencyStore, claim: Claim, stored: str) -> None:
    try:
        await store.finish(claim, stored)
    except StoreUnavailable:
        log.warning("an answer could not be kept for replay: the store is away")


async def _release(store: IdempotencyStore, claim: Claim) -> None:
    try:
        await store.release(claim)
    except StoreUnavailable:
        log.warning("an idempotency claim could not be dropped; it will expire")
