"""Health, readiness, metrics, logs, request ids, and what is refused at the door."""

import json
from typing import Any

import pytest


class TestOperations:
    def test_health_and_readiness(self, service: Any) -> None:
        assert service.client.get("/healthz").json() == {"status": "ok"}
        assert service.client.get("/readyz").json() == {
            "ready": True, "engine": "ok", "store": "ok", "draining": False,
        }  # fmt: skip

    def test_metrics_hold_ours_and_the_engines(self, service: Any) -> None:
        service.client.post("/respond", json={"query": "Hello", "max_tokens": 4})
        text = service.client.get("/metrics").text
        for name in (
            "llm_auction_ttft_seconds_count",
            'llm_auction_stage_seconds_count{stage="prefill"}',
            "llm_auction_answer_ads_count",
            "vllm:prompt_tokens_total",
        ):
            assert name in text

    def test_metric_labels_hold_no_raw_paths(self, service: Any) -> None:
        service.client.get("/ads/Ad-unheard-of-8271")
        service.client.get("/no/such/path-8271")
        text = service.client.get("/metrics").text
        assert "8271" not in text
        assert 'route="/ads/{ad_id}"' in text

    def test_logs_name_the_request_and_trace_but_not_the_words(self, service: Any) -> None:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        response = service.client.post(
            "/respond",
            json={"query": "my secret rash", "max_tokens": 4, "user_profile": {"info": "Bob"}},
            headers={"X-Request-Id": "req-77", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
        )
        assert response.headers["x-request-id"] == "req-77"
        entry = json.loads(service.wait_for(r"(\{.*req-77.*\})", 10)[1])
        assert entry["trace_id"] == trace
        assert entry["status"] == 200
        output = "".join(service.lines)
        assert "rash" not in output
        assert "Bob" not in output


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "loc"),
        [
            ({"query": ""}, "/query"),
            ({"query": "\u0000 "}, "/query"),
            ({"query": 5}, "/query"),
            ({"candidates": [{"ad_id": "Ad 1", "bid": 1}]}, "/candidates/0/ad_id"),
            ({"candidates": [{"ad_id": "Ad-1", "bid": 0}]}, "/candidates/0/bid"),
            ({"candidates": [{"ad_id": "Ad-1", "bid": True}]}, "/candidates/0/bid"),
            ({"candidates": [{"ad_id": "Ad-1", "bid": 1.0000001}]}, "/candidates/0/bid"),
            ({"candidates": [{"ad_id": "Ad-1", "bid": 1e7}]}, "/candidates/0/bid"),
            ({"candidates": [{"ad_id": "Ad-1", "bid": 1}] * 201}, "/candidates"),
            ({"max_ads": -1}, "/max_ads"),
            ({"max_tokens": 4000}, "/max_tokens"),
            ({"temperature": 3}, "/temperature"),
            ({"colour": "red"}, "/colour"),
        ],
    )
    def test_says_where_and_what(self, service: Any, change: dict[str, Any], loc: str) -> None:
        response = service.client.post("/respond", json={"query": "Hello", **change})
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert loc in [error["loc"] for error in response.json()["errors"]]

    @pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"query": NaN}', b"[]", b""])
    def test_broken_bodies_are_the_callers_fault(self, service: Any, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        response = service.client.post("/respond", content=body, headers=headers)
        assert response.status_code in {400, 422}
        assert response.headers["content-type"] == "application/problem+json"

    def test_half_a_surrogate_is_refused(self, service: Any) -> None:
        headers = {"Content-Type": "application/json"}
        body = b'{"query": "\\ud83d hi"}'
        response = service.client.post("/respond", content=body, headers=headers)
        assert response.status_code in {400, 422}

    def test_large_bodies_are_refused(self, service: Any) -> None:
        response = service.client.post("/respond", json={"query": "x" * (1 << 20)})
        assert response.status_code == 413

    def test_unknown_paths_and_methods_are_problems(self, service: Any) -> None:
        assert service.client.get("/nowhere").json()["code"] == "not_found"
        refused = service.client.delete("/respond")
        assert refused.status_code == 405
        assert refused.headers["content-type"] == "application/problem+json"
