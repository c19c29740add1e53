"""A service of one's own to break or measure: started as a user would, in its own state directory.

Its model is the stand-in of `fake_vllm`, so that everything else is what is measured, or a real
one. All that is started here listens on loopback and ends with the block that started it.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Self

import httpx

NAMESPACE = "llm-auction"
_START_S = 300.0
_POLL_S = 0.02


class OwnService:
    """`python -m service.cli serve` on a port that stays the same over restarts.

    engine_url: a vLLM server's address; None: vLLM in process, with the model that `variables`
    (of the environment) name. command: what to run instead, with the same settings.
    """

    def __init__(
        self,
        state_dir: Path,
        engine_url: str | None,
        command: Sequence[str] = ("-m", "service.cli", "serve"),
        **variables: str,
    ) -> None:
        engine = {"KIND": "remote", "URL": engine_url} if engine_url else {"KIND": "vllm"}
        self.state_dir = state_dir
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **{n: v for n, v in os.environ.items() if "LLM_AUCTION" not in n and n != "REDIS_URL"},
            **{f"LLM_AUCTION_ENGINE__{name}": value for name, value in engine.items()},
            "LLM_AUCTION_HTTP__PORT": self.url.rpartition(":")[2],
            "LLM_AUCTION_STATE_DIR": str(state_dir),
            "LLM_AUCTION_LOG__LEVEL": "error",
            **variables,
        }
        self.command = command
        self.process: asyncio.subprocess.Process | None = None

    @property
    def valkey_socket(self) -> Path:
        """Where the embedded Valkey listens."""
        return self.state_dir / "valkey" / "valkey.sock"

    async def start(self) -> None:
        """Start the process where it does not run, and wait until it answers, with its store."""
        if self.process is None or self.process.returncode is not None:
            with (self.state_dir / "service.log").open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, *self.command, env=self.environment, stderr=log
                )
        await self._until_ready(self.process)

    async def kill(self) -> None:
        """SIGKILL to the service, and wait for its end."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    def kill_valkey(self) -> None:
        """SIGKILL to the embedded Valkey; nothing where it does not run just now."""
        for child in self._children():
            with contextlib.suppress(OSError):  # it may be gone by now
                if b"valkey" in Path(f"/proc/{child}/comm").read_bytes():
                    os.kill(child, signal.SIGKILL)

    async def stop(self) -> None:
        """End the service in order."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def _children(self) -> list[int]:
        assert self.process is not None
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(pid) for pid in task.read_text().split()]
        except OSError:
            return []

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_START_S), httpx.AsyncClient(timeout=_START_S) as client:
            while True:
                if process.returncode is not None:
                    log = (self.state_dir / "service.log").read_text(errors="replace")
                    raise RuntimeError(f"the service ended at its start:\n{log[-2_000:]}")
                with contextlib.suppress(httpx.TransportError):
                    ready = await client.get(f"{self.url}/readyz")
                    if ready.status_code == httpx.codes.OK and ready.json()["store"] == "ok":
                        return
                await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def run_fake_vllm(*, ads: int) -> AsyncGenerator[str]:
    """The stand-in for the model, inserting `ads` ads; yields its URL."""
    port = free_port()
    words = ("-m", "loadtest.fake_vllm", "--port", str(port), "--ads", str(ads))
    async with run_server(words, port) as url:
        yield url


@asynccontextmanager
async def run_server(
    command: Sequence[str],
    port: int,
    env: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> AsyncGenerator[str]:
    """`python` with `command`, which listens on `port`; yields its URL once `/health` answers."""
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=env, stdout=log, stderr=log
    )
    try:
        async with asyncio.timeout(_START_S), httpx.AsyncClient(timeout=_START_S) as client:
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"it ended at its start: python {' '.join(command)}")
                with contextlib.suppress(httpx.TransportError):
                    await client.get(f"{url}/health")
                    break
                await asyncio.sleep(_POLL_S)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
