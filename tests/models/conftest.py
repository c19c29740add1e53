"""One real vLLM in this process for all tests that need it."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from models.provision import ServableModel

if TYPE_CHECKING:
    from models.engine.vllm import VllmEngine


@pytest.fixture(scope="session")
async def vllm_engine(servable_model: ServableModel) -> AsyncIterator["VllmEngine"]:
    from models.engine.vllm import VllmEngine, VllmOptions

    engine = await VllmEngine.start(
        servable_model, options=VllmOptions(max_model_len=2048, kv_cache_gib=1.0)
    )
    yield engine
    await engine.close()
