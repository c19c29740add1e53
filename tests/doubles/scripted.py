"""An engine that does as it is told, for faults that a real one cannot be brought to show."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from models.contract.prompt import Prompt
from models.engine.deadline import until_deadline
from models.engine.interface import (
    Chunk,
    EngineError,
    Generation,
    Load,
    ModelIdentity,
    Usage,
)
from service.auction.signing_key import SigningKey, SigningKeys
from service.life import Life
from service.metrics import create_metrics
from service.services import Services, open_stores
from service.settings import Settings, StoreSettings
from service.store.connection import Store


class ScriptedEngine:
    """Says what it was told to, a string a chunk; an exception is raised in its turn."""

    model = ModelIdentity("scripted", "1")
    max_model_len = 4096

    def __init__(self, script: Sequence[str | EngineError], pause: bool = False) -> None:
        self.script = script
        self.pause = pause
        self.generations: list[Generation] = []
        self.is_closed = asyncio.Event()

    def count_tokens(self, prompt: Prompt, at_most: int | None = None) -> int:
        return sum(len(p.text) for message in prompt.messages for p in message.pieces) // 4

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        self.generations.append(generation)
        return until_deadline(self._stream(), generation.deadline_at)

    async def _stream(self) -> AsyncGenerator[Chunk]:
        try:
            for line in self.script:
                if isinstance(line, EngineError):
                    raise line
                yield Chunk(line, 1)
            if self.pause:
                await asyncio.Event().wait()
            yield Chunk("", 0, "stop", Usage(10, 0, len(self.script)))
        finally:
            self.is_closed.set()

    def load(self) -> Load:
        return Load(0, 0)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


def scripted_services(
    store: Store, engine: Any, namespace: str = "test", **settings: Any
) -> Services:
    """A service around `engine` and what `store` keeps under `namespace`."""
    chosen = Settings(store=StoreSettings(namespace=namespace), **settings)
    key = SigningKey("k1", b"k" * 32)
    return Services(
        settings=chosen,
        engine=engine,
        signing=SigningKeys(key, (key,)),
        metrics=create_metrics(),
        life=Life(),
        secret=b"s" * 32,
        **open_stores(store, chosen),
    )
