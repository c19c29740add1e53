"""`Idempotency-Key`: the same key and body give the same answer, generated once.

A second request waits for the first and replays it; another body under the same key is refused.
Where the store does not say whose the key is, the answer has to be given without ads: it is kept
for nobody, and a retry would have its ads charged again.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable
from time import monotonic

from pydantic_core import to_json

from service.answer import Answer
from service.api.render import ClickLink, as_response
from service.api.schemas import RespondResponse
from service.errors import IdempotencyConflict, IdempotencyInProgress
from service.store.connection import StoreUnavailable
from service.store.idempotency import Claim, Conflict, IdempotencyStore, InProgress, Replay

log = logging.getLogger(__name__)
_POLL_S = 0.05


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
                stored: RespondResponse = json.loads(outcome.stored)
                return stored
            case Conflict():
                raise IdempotencyConflict("Use a fresh key for a new request")
            case InProgress():
                if monotonic() + _POLL_S > deadline_at:
                    raise IdempotencyInProgress("Ask again later", retry_after_ms=1_000)
                await asyncio.sleep(_POLL_S)


class Fulfilment:
    """The one answer under a claim: kept with its record, or the claim is given up."""

    def __init__(self, store: IdempotencyStore, claim: Claim, link: ClickLink) -> None:
        self._store = store
        self._claim = claim
        self._link = link
        self._is_made = False
        self.response: RespondResponse | None = None
        """What is kept, once it is."""

    def keep(self, answer: Answer) -> Awaitable[None]:
        """What keeps `answer`, to be awaited when it is recorded. From now on the claim stands: an
        answer that was recorded must not be made again, whether or not anybody received it."""
        self._is_made = True
        return self._keep(answer)

    async def _keep(self, answer: Answer) -> None:
        self.response = as_response(answer, self._link)
        try:
            await self._store.finish(self._claim, to_json(self.response).decode())
        except StoreUnavailable:
            log.warning("an answer could not be kept for replay: the store is away")

    async def give_up(self) -> None:
        """Free the key for another try, unless the answer was made."""
        if self._is_made:
            return
        try:
            await self._store.release(self._claim)
        except StoreUnavailable:
            log.warning("an idempotency claim could not be dropped; it will expire")
