"""Idempotency keys: who may make an answer under a key, and the answer that was made.

A key's first request gets a claim, which only its holder can finish or release; it expires by
itself should the holder die. A finished key replays what was stored.

A store that was slow may grant a claim to one who has gone away or given up waiting. So a claim is
short until its holder, having heard of it, asks for more.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from service.store.connection import Store

_BEGIN = """
local held = redis.call('HMGET', KEYS[1], 'body', 'stored')
if not held[1] then
  redis.call('HSET', KEYS[1], 'body', ARGV[1], 'token', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'claimed'}
end
if held[1] ~= ARGV[1] then return {'conflict'} end
if held[2] then return {'replay', held[2]} end
return {'in_progress'}
"""

_HOLD = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_FINISH = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'token')
redis.call('HSET', KEYS[1], 'stored', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

_RELEASE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


UNHEARD_MS = 2_000
"""How long a claim lasts that nobody has heard of."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to make the answer; `token` is known to its holder alone."""

    store_key: str
    token: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer was made before: `stored` is what `finish` was given."""

    stored: str


@dataclass(frozen=True, slots=True)
class InProgress:
    """Another request with this key and body is making the answer now."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key was used with another body."""


Outcome = Claim | Replay | InProgress | Conflict


class IdempotencyStore:
    """Every method raises StoreUnavailable. Finished keys are kept for `ttl_s` seconds."""

    def __init__(self, store: Store, namespace: str, ttl_s: int) -> None:
        self._store = store
        self._prefix = f"{{{namespace}}}:idempotency:"
        self._ttl_ms = ttl_s * 1000

    async def begin(self, scope: str, key: str, body_hash: str, lock_ms: int) -> Outcome:
        """What a request with `key` should do; keys of different scopes (callers) do not meet.

        lock_ms: after this time without `finish` or `release` the claim is void.
        """
        name = hashlib.sha256(f"{scope}\0{key}".encode()).hexdigest()
        claim = Claim(self._prefix + name, secrets.token_hex(16))
        outcome = await self._run(_BEGIN, claim.store_key, body_hash, claim.token, UNHEARD_MS)
        match [part.decode() for part in outcome]:
            case ["claimed"]:
                is_held = await self._run(_HOLD, claim.store_key, claim.token, lock_ms)
                return claim if is_held else InProgress()
            case ["replay", stored]:
                return Replay(stored)
            case ["in_progress"]:
                return InProgress()
            case _:
                return Conflict()

    async def finish(self, claim: Claim, stored: str) -> bool:
        """Keep `stored` for replay; False where the claim is void, and nothing is kept."""
        return bool(await self._run(_FINISH, claim.store_key, claim.token, stored, self._ttl_ms))

    async def release(self, claim: Claim) -> bool:
        """Give the claim up, so that the key can be used anew; False where it is void."""
        return bool(await self._run(_RELEASE, claim.store_key, claim.token))

    async def _run(self, script: str, key: str, *arguments: str | int) -> Any:
        return await self._store.run(lambda redis: redis.eval(script, 1, key, *arguments))
