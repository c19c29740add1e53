"""The same service in front of vLLM's own server: `engine.kind = remote`."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

ASK = {
    "query": "Which running shoes are good for a beginner?",
    "candidates": [{"ad_id": "Ad-1001", "bid": 1.25}],
    "max_tokens": 24,
}


@pytest.fixture(scope="module")
def remote_service(start_service: Callable[..., Any], vllm_server: Any) -> Any:
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{vllm_server.url}/health", timeout=2).status_code == 200:
                break
        time.sleep(0.5)
    return start_service(
        LLM_AUCTION_ENGINE__KIND="remote",
        LLM_AUCTION_ENGINE__MODEL="tiny",
        LLM_AUCTION_ENGINE__URL=vllm_server.url,
        LLM_AUCTION_ENGINE__API_KEY=vllm_server.api_key,
        LLM_AUCTION_GENERATION__LAYOUT="split",
    )


class TestRemote:
    def test_gives_the_same_contract(self, remote_service: Any) -> None:
        body = remote_service.client.post("/respond", json=ASK).json()
        assert body["model"]["name"] == "tiny"
        assert body["model"]["contract"] == "3-split"
        assert 0 < body["usage"]["completion_tokens"] <= 24
        assert body["latency_ms"]["ttft"] <= body["latency_ms"]["total"]
        assert not {fault["kind"] for fault in body["faults"]} - {"duplicate", "truncated"}

    def test_a_closed_stream_frees_both(self, remote_service: Any, vllm_server: Any) -> None:
        def running() -> float:
            text = httpx.get(f"{vllm_server.url}/metrics").text
            name = "vllm:num_requests_running"
            return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith(name))

        long = {"query": "Hello", "max_tokens": 1500, "temperature": 2, "top_p": 1, "top_k": 0}
        with remote_service.client.stream(
            "POST", "/respond", json={**long, "stream": True}
        ) as part:
            chunks = part.iter_bytes()  # held by name: collected, it would close the connection
            next(chunks)
        assert remote_service.eventually(
            lambda: remote_service.engine_requests() == 0 and running() == 0, within_s=1.5
        )
