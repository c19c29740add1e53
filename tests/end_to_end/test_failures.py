"""What breaks, and how the service takes it: Redis, the engine, signals, the network's edge."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ASK = {
    "query": "Which running shoes are good for a beginner?",
    "candidates": [{"ad_id": "Ad-1001", "bid": 1.25}],
    "max_tokens": 8,
}


def answers_without_ads(service: Any) -> bool:
    response = service.client.post("/respond", json=ASK)
    assert response.status_code == 200
    return bool(response.json()["ads_unavailable"])


class TestStoreAway:
    def test_a_slow_store_costs_the_ads_not_the_answer(self, service: Any) -> None:
        valkey = service.child("valkey")
        os.kill(valkey, signal.SIGSTOP)
        try:
            answer = service.client.post("/respond", json=ASK).json()
            assert answer["ads_unavailable"]
            assert answer["latency_ms"]["eligible"] < 5_000  # not the total: the engine may be busy
            assert service.eventually(
                lambda: (
                    service.client.get("/readyz").json()["store"] == "unavailable"
                    or not answers_without_ads(service)
                ),
                within_s=10,
            )
            assert service.client.get("/readyz").status_code == 200
            assert service.client.get("/ads/Ad-1001").status_code == 503
        finally:
            os.kill(valkey, signal.SIGCONT)
        assert service.eventually(lambda: not answers_without_ads(service), within_s=20)

    def test_a_killed_store_comes_back_with_its_ads(self, service: Any) -> None:
        before = service.client.get("/ads/Ad-1001").raise_for_status().json()
        os.kill(service.child("valkey"), signal.SIGKILL)
        assert service.eventually(
            lambda: service.client.get("/ads/Ad-1001").status_code == 200, within_s=30
        )
        assert service.client.get("/ads/Ad-1001").json() == before
        assert service.eventually(lambda: not answers_without_ads(service), within_s=20)


class TestStop:
    def test_sigterm_drains_and_exits_with_zero(self, start_service: Callable[..., Any]) -> None:
        service = start_service()
        running: list[httpx.Response] = []
        long = {"query": "Tell me a story.", "max_tokens": 80, "stream": True, "temperature": 1.0}

        def ask() -> None:
            with service.client.stream("POST", "/respond", json=long) as response:
                begun.set()
                response.read()
                running.append(response)

        begun = threading.Event()
        asking = threading.Thread(target=ask)
        asking.start()
        begun.wait(30)
        valkey = service.child("valkey")
        service.process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert service.process.wait(60) == 0
        assert "event: done" in running[0].text
        assert not Path(f"/proc/{valkey}").exists()

    def test_a_dead_engine_ends_the_process(self, start_service: Callable[..., Any]) -> None:
        service = start_service()
        os.kill(service.child("EngineCore"), signal.SIGKILL)
        assert service.process.wait(30) == 70


class TestStart:
    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", *arguments],
            env={**os.environ, "COLUMNS": "500", **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_an_open_address_without_keys_is_refused(self, tmp_path: Path) -> None:
        refused = self.run("--host", "0.0.0.0", "--state-dir", str(tmp_path))
        assert refused.returncode == 2
        assert "llm-auction keys new" in refused.stderr

    def test_every_wrong_setting_is_reported(self, tmp_path: Path) -> None:
        refused = self.run(
            "--port", "70000",
            LLM_AUCTION_LIMITS__MAX_REQESTS="1",
            LLM_AUCTION_LIMIT__MAX_REQUESTS="1",
            LLM_AUCTION_AUCTION__CURRENCY="dollars",
        )  # fmt: skip
        assert refused.returncode == 2
        for name in ("http.port", "max_reqests", "LLM_AUCTION_LIMIT__", "auction.currency"):
            assert name in refused.stderr

    def test_a_used_port_is_reported_at_once(self, service: Any, tmp_path: Path) -> None:
        port = service.url.rpartition(":")[2]
        refused = self.run("--port", port, "--state-dir", str(tmp_path))
        assert refused.returncode == 1
        assert "choose another PORT" in refused.stderr

    def test_a_model_server_that_is_away_is_reported(self, tmp_path: Path) -> None:
        refused = self.run(
            "--port", "0", "--state-dir", str(tmp_path),
            LLM_AUCTION_ENGINE__KIND="remote",
            LLM_AUCTION_ENGINE__URL="http://127.0.0.1:1",
        )  # fmt: skip
        assert refused.returncode == 1
        assert "Not started" in refused.stderr
        assert "Traceback" not in refused.stderr
