"""The engine behind a User-LLM: an OpenAI-compatible endpoint, or vLLM in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.engine.interface import Engine, ModelIdentity
from models.engine.remote import RemoteEngine, RemoteOptions

if TYPE_CHECKING:
    from models.provision import ServableModel

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

    @property
    def is_remote(self) -> bool:
        return bool(self.url)


async def identity(choice: EngineChoice, progress: Callable[[str], None]) -> ModelIdentity:
    """The model that `choice` comes to, which is not run for that.

    Raises EngineError, ProvisionError.
    """
    if not choice.is_remote:
        model = _provisioned(choice, progress)
        return ModelIdentity(model.name, model.revision)
    engine = await _remote(choice)
    await engine.close()
    return engine.model


@asynccontextmanager
async def open_engine(
    choice: EngineChoice, progress: Callable[[str], None], gpu_share: float = 0.9
) -> AsyncIterator[Engine]:
    """The engine, closed at the end. gpu_share: of a GPU's memory, over 0 to 1, where the model
    runs here.

    Raises EngineError, ProvisionError.
    """
    start = _remote(choice) if choice.is_remote else _in_process(choice, progress, gpu_share)
    engine = await start
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


async def _in_process(
    choice: EngineChoice, progress: Callable[[str], None], gpu_share: float
) -> Engine:
    from models.engine.vllm import VllmEngine, VllmOptions

    options = VllmOptions(gpu_memory_utilization=gpu_share)
    model = _provisioned(choice, progress)
    return await VllmEngine.start(model, options=options, progress=progress)


def _provisioned(choice: EngineChoice, progress: Callable[[str], None]) -> "ServableModel":
    from models.provision import default_model, provision

    return provision(choice.model or default_model(), choice.cache_dir, progress)
