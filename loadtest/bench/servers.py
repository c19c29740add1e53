"""The servers that parts compare: a service with the real model, and vLLM's own server."""

import json
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from loadtest.bench.options import Options
from loadtest.bench.tokens import enter_ads
from loadtest.own_service import OwnService, free_port, run_server
from models.engine.environment import has_cpu_vllm, process_environment

_KV_CACHE_BYTES = 2 << 30
_GPU_SHARE = 0.4
"""Of a GPU's memory, for each of two engines at once."""


@asynccontextmanager
async def real_service(
    options: Options, session: aiohttp.ClientSession, ads: int = 200, **variables: str
) -> AsyncGenerator[OwnService]:
    """The service with vLLM and the model in process, and the benchmarks' ads in its catalogue."""
    variables = {"LLM_AUCTION_ENGINE__MODEL": str(options.model), **variables}
    if not has_cpu_vllm():
        variables["LLM_AUCTION_ENGINE__ARGS"] = json.dumps({"gpu_memory_utilization": _GPU_SHARE})
    with tempfile.TemporaryDirectory(prefix="llm-auction-bench-") as directory:
        async with OwnService(Path(directory), None, **variables) as service:
            await enter_ads(session, service.url, ads)
            yield service


@asynccontextmanager
async def remote_service(
    engine_url: str, session: aiohttp.ClientSession, ads: int = 200
) -> AsyncGenerator[OwnService]:
    """The service before a model server, and the benchmarks' ads in its catalogue."""
    with tempfile.TemporaryDirectory(prefix="llm-auction-bench-") as directory:
        async with OwnService(Path(directory), engine_url) as service:
            await enter_ads(session, service.url, ads)
            yield service


@asynccontextmanager
async def vllm_server(options: Options) -> AsyncGenerator[str]:
    """vLLM's own server with the service's engine settings and environment; yields its URL."""
    port = free_port()
    command = [
        "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(options.model), "--served-model-name", "model",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "8192",
        "--structured-outputs-config", '{"backend": "xgrammar"}',
        "--disable-uvicorn-access-log", *_device_settings(),
    ]  # fmt: skip
    environment = {**os.environ, **process_environment(os.environ)}
    with tempfile.TemporaryFile() as log:
        async with run_server(command, port, environment, log) as url:
            yield url


def _device_settings() -> list[str]:
    """What the service has vLLM do on this device."""
    if not has_cpu_vllm():
        return ["--gpu-memory-utilization", str(_GPU_SHARE), "--enable-chunked-prefill"]
    return [
        "--enforce-eager", "--max-num-seqs", "32",
        "--kv-cache-memory-bytes", str(_KV_CACHE_BYTES),
        "--no-enable-chunked-prefill", "--max-num-batched-tokens", "8224",
    ]  # fmt: skip
