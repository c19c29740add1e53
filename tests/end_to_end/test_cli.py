"""The command line against a running service, as its users type it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def llm_auction(service: Any, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments, "--url", service.url],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestRespond:
    def test_prints_the_answer_and_its_account(self, service: Any) -> None:
        done = llm_auction(
            service, "respond", "Which shoes?", "--ad", "Ad-1001=1.25", "--max-tokens", "8"
        )
        assert done.returncode == 0
        assert "Latency in ms" in done.stdout
        assert "prompt tokens" in done.stdout

    def test_as_json_it_is_the_response(self, service: Any) -> None:
        arguments = ("respond", "-", "--max-tokens", "8", "--json")
        done = llm_auction(service, *arguments, stdin="Which shoes?")
        assert json.loads(done.stdout)["usage"]["completion_tokens"] <= 8

    def test_a_refusal_says_where_and_exits_with_one(self, service: Any) -> None:
        done = llm_auction(service, "respond", "Hello", "--ad", "Ad-1001=0")
        assert done.returncode == 1
        assert "/candidates/0/bid" in done.stderr

    @pytest.mark.parametrize("ad", ["Ad-1001", "Ad-1001=lots"])
    def test_a_malformed_candidate_is_a_usage_error(self, service: Any, ad: str) -> None:
        done = llm_auction(service, "respond", "Hello", "--ad", ad)
        assert done.returncode == 2
        assert "AD_ID=BID" in done.stderr


class TestKeys:
    def test_a_new_key_opens_a_service_that_holds_its_hash(
        self, start_service: Any, tmp_path: Path
    ) -> None:
        file = tmp_path / "keys"
        made = [
            subprocess.run(
                [
                    sys.executable, "-m", "service.cli", "keys", "new", name,
                    "--scope", scope, "--file", str(file),
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for name, scope in (("frontend", "respond"), ("operator", "admin"))
        ]  # fmt: skip
        service = start_service(
            LLM_AUCTION_HTTP__HOST="127.0.0.1", LLM_AUCTION_AUTH__KEYS_FILE=str(file)
        )
        respond, admin = ({"Authorization": f"Bearer {secret}"} for secret in made)
        ask = {"query": "Hello", "max_tokens": 2}
        assert service.client.post("/respond", json=ask).status_code == 401
        assert service.client.post("/respond", json=ask, headers=respond).status_code == 200
        assert service.client.get("/ads", headers=respond).status_code == 403
        assert service.client.get("/ads", headers=admin).status_code == 200
        assert service.client.get("/metrics").status_code == 401
        assert service.client.get("/healthz").status_code == 200
