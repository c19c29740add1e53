"""The engine behind a User-LLM: an OpenAI-compatible endpoint, or vLLM in this process."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from models.engine.environment import process_environment
from models.engine.interface import Engine
from models.engine.remote import RemoteEngine, RemoteOptions

_PREPARED = "_LLM_AUCTION_ENVIRONMENT_PREPARED"
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


def prepare_process(choice: EngineChoice) -> None:
    """Start this process anew, once, with what vLLM wants set before; not for an endpoint."""
    if choice.url is not None or _PREPARED in os.environ:
        return
    environment = {**os.environ, **process_environment(os.environ), _PREPARED: "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


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
