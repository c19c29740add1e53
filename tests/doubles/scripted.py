"""An engine that does as it is told, for faults that a real one cannot be brought to show."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from models.contract.prompt import Prompt
from models.engine.interface import (
    Chunk,
    EngineError,
    Generation,
    Load,
    ModelIdentity,
    Usage,
)
from service.life import Life
from service.metrics import create_metrics
from service.services import Services
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.connection import Store
from service.store.idempotency import IdempotencyStore


class ScriptedEngine:
    """Says what it was told to, a string a chunk; an exception is raised in its turn."""

    model = ModelIdentity("scripted", "1")
    max_model_len = 4096

    def __init__(self, script: Sequence[str | EngineError], pause: bool = False) -> None:
        self.script = script
        self.pause = pause
        self.generations: list[Generation] = []
        self.is_closed = asyncio.Event()

    def count_tokens(self, prompt: Prompt) -> int:
        return sum(len(p.text) for message in prompt.messages for p in message.pieces) // 4

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        self.generations.append(generation)
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


def scripted_services(store: Store, engine: Any, **settings: Any) -> Services:
    """A service around `engine` and the catalogue `test` of `store`."""
    return Services(
        settings=Settings(**settings),
        engine=engine,
        catalog=Catalog(store, "test"),
        idempotency=IdempotencyStore(store, "test", 60),
        metrics=create_metrics(),
        life=Life(),
        secret=b"s" * 32,
    )
