"""A real service in a process of its own: uvicorn, vLLM, Valkey, started as a user would."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from models.provision import ServableModel


class Service:
    """A running `llm-auction serve`; `lines` is everything that it has printed."""

    def __init__(self, state_dir: Path, model: str, **variables: str) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if "LLM_AUCTION" not in name},
            "LLM_AUCTION_ENGINE__MODEL": model,
            "LLM_AUCTION_HTTP__PORT": "0",
            "LLM_AUCTION_STATE_DIR": str(state_dir),
            "COLUMNS": "1000",
            **variables,
        }
        self.state_dir = state_dir
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)

    def wait_for(self, pattern: str, timeout_s: float = 180) -> re.Match[str]:
        """The first line from now on that matches; fails with all output when the process ends."""
        until = time.monotonic() + timeout_s
        while (line := self._news.get(timeout=max(0.01, until - time.monotonic()))) is not None:
            if match := re.search(pattern, line):
                return match
        pytest.fail("the service ended:\n" + "".join(self.lines))

    def start(self) -> "Service":
        self.url = self.wait_for(r"Ready after .* on (http://\S+)")[1]
        self.client = httpx.Client(base_url=self.url, timeout=120)
        return self

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, as `/metrics` shows them."""
        text = self.client.get("/metrics").text
        samples = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, samples))

    def engine_requests(self) -> float:
        return self.metric("llm_auction_engine_requests")

    def children(self) -> list[int]:
        """Process ids of the service's children, engine and Valkey among them."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def child(self, word: str) -> int:
        """The child whose command line or name holds `word`."""
        for pid in self.children():
            name = Path(f"/proc/{pid}/comm").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if word in name or word in command:
                return pid
        pytest.fail(f"no child {word} of {self.process.pid}")

    @staticmethod
    def eventually(condition: Callable[[], bool], within_s: float) -> bool:
        """Whether `condition` comes true in time; asks it every 20 ms."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.02)
        return condition()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="session")
def start_service(
    servable_model: ServableModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """Starts services; ends what is left of them."""
    started: list[Service] = []

    def start(**variables: str) -> Service:
        started.append(Service(tmp_path_factory.mktemp("state"), servable_model.path, **variables))
        return started[-1].start()

    yield start
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def service(start_service: Callable[..., Service]) -> Service:
    """One service that most tests share."""
    return start_service(LLM_AUCTION_LIMITS__MAX_REQUESTS="6")
