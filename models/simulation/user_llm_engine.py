"""The engine behind a User-LLM: an OpenAI-compatible endpoint, or vLLM in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from models.engine.interface import Engine
from models.engine.remote import RemoteEngine, RemoteOptions

_READ_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which model plays the users.

    url: of an OpenAI-compatible endpoint; None runs vLLM in this process. model: its name there,
    or the model to run here; None is the endpoint's own, or the default model. cache_dir: where
    a model that is run here is kept.
    """

    url: str | None
    model: str | None
    api_key: str | None
    cache_dir: Path


@asynccontextmanager
async def open_engine(
    choice: EngineChoice, progress: Callable[[str], None]
) -> AsyncIterator[Engine]:
    """The engine, closed at the end. Raises EngineError, ProvisionError."""
    engine = await (_remote(choice) if choice.url else _in_process(choice, progress))
    try:
        yield engine
    finally:
        await engine.close()


async def _remote(choice: EngineChoice) -> Engine:
    return await RemoteEngine.start(
        RemoteOptions(
            choice.url or "",
            choice.model,
            api_key=choice.api_key,
            read_timeout_s=_READ_TIMEOUT_S,
        )
    )


async def _in_process(choice: EngineChoice, progress: Callable[[str], None]) -> Engine:
    from models.engine.vllm import VllmEngine
    from models.provision import default_model, provision

    model = provision(choice.model or default_model(), choice.cache_dir, progress)
    return await VllmEngine.start(model, progress=progress)
