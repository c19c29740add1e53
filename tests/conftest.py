"""What tests of several packages share: the default model, made servable once and kept."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from models.engine.environment import process_environment
from models.provision import DEFAULT_MODEL, ServableModel, provision

# The engine's own process, where these matter most, starts with this process's environment.
os.environ.update(process_environment(os.environ, offline=True))


@pytest.fixture(scope="session")
def servable_model(pytestconfig: pytest.Config) -> ServableModel:
    cache = pytestconfig.cache
    assert cache is not None
    return provision(DEFAULT_MODEL, Path(cache.mkdir("models")), print)


class VllmServer(NamedTuple):
    """vLLM's own OpenAI-compatible server, on loopback; it takes half a minute to answer."""

    url: str
    api_key: str
    context: int


@pytest.fixture(scope="session")
def vllm_server(servable_model: ServableModel) -> Iterator[VllmServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = VllmServer(f"http://127.0.0.1:{port}", "correct horse", 2048)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", servable_model.path, "--served-model-name", "tiny"),
            *("--host", "127.0.0.1", "--port", str(port), "--api-key", settings.api_key),
            *("--max-model-len", str(settings.context), "--enforce-eager", "--dtype", "bfloat16"),
            *("--kv-cache-memory-bytes", str(1 << 29), "--enable-prompt-tokens-details"),
        ]
    )
    yield settings
    server.terminate()
    server.wait(timeout=60)
