"""The main job on real parts: a real model, a real Valkey, HTTP."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

CANDIDATES = [{"ad_id": f"Ad-{number}", "bid": 1.25} for number in (1001, 1002, 1003, 1004)]
QUERY = {"query": "Which running shoes are good for a beginner?", "max_tokens": 48, "seed": 7}


def events(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The server-sent events of a response."""
    blocks = response.text.strip().split("\n\n")
    fields = (dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks)
    return [(block["event"], json.loads(block["data"])) for block in fields]


def listed_ads(service: Any) -> list[dict[str, Any]]:
    return list(service.client.get("/ads", params={"limit": 100}).json()["ads"])


class TestRespond:
    def test_gives_the_full_contract(self, service: Any) -> None:
        response = service.client.post("/respond", json={**QUERY, "candidates": CANDIDATES})
        assert response.status_code == 200
        body = response.json()
        assert body["answer"]
        assert (
            "".join(
                part["text"] if part["type"] == "text" else f"@{part['text']}@[{part['ad_id']}]"
                for part in body["segments"]
            )
            == body["answer"]
            or body["faults"]
        )
        assert body["model"]["contract"] == "3-inline"
        assert body["finish_reason"] in {"stop", "length"}
        assert body["usage"]["completion_tokens"] <= 48
        assert {"total", "eligible", "prompt", "queue", "ttft", "prefill", "decode"} <= set(
            body["latency_ms"]
        )

    def test_latency_adds_up(self, service: Any) -> None:
        body = service.client.post("/respond", json={**QUERY, "candidates": CANDIDATES}).json()
        latency = body["latency_ms"]
        stages = sum(ms for name, ms in latency.items() if name not in {"total", "ttft"})
        assert 0 <= latency["total"] - stages < 20
        assert latency["ttft"] <= latency["total"]

    def test_excluded_candidates_come_back_with_reasons(self, service: Any) -> None:
        paused = next(ad for ad in listed_ads(service) if ad["status"] == "paused")
        candidates = [
            {"ad_id": "Ad-unheard-of", "bid": 1},
            {"ad_id": paused["ad_id"], "bid": 1},
            *CANDIDATES,
            CANDIDATES[0],
        ]
        body = service.client.post("/respond", json={**QUERY, "candidates": candidates}).json()
        reasons = {(e["ad_id"], e["reason"]) for e in body["excluded"]}
        assert {
            ("Ad-unheard-of", "unknown"),
            (paused["ad_id"], "paused"),
            (CANDIDATES[0]["ad_id"], "duplicate"),
        } <= reasons

    def test_without_candidates_there_is_no_marker(self, service: Any) -> None:
        body = service.client.post("/respond", json={**QUERY, "candidates": []}).json()
        assert body["ads"] == []
        assert "@[" not in body["answer"]

    def test_insertions_are_priced_at_the_bid(self, service: Any) -> None:
        """Whatever the model inserts, each ad costs exactly its bid."""
        bids = {ad["ad_id"]: 0.5 + i for i, ad in enumerate(listed_ads(service)[:20])}
        candidates = [{"ad_id": ad_id, "bid": bid} for ad_id, bid in bids.items()]
        shown = []
        for seed in range(6):
            ask = {**QUERY, "candidates": candidates, "seed": seed, "temperature": 1.5}
            body = service.client.post("/respond", json=ask).json()
            shown += [(body["answer"], ad) for ad in body["ads"]]
        for answer, ad in shown:
            marker = answer[ad["span"]["start"] : ad["span"]["end"]]
            assert marker == f"@{ad['title']}@[{ad['ad_id']}]"
            assert ad["charge"]["price_micros"] == round(bids[ad["ad_id"]] * 1_000_000)
            assert ad["disclosure"] == "Sponsored"


class TestStream:
    def test_streams_the_same_answer_as_it_ends_with(self, service: Any) -> None:
        ask = {**QUERY, "candidates": CANDIDATES, "stream": True}
        response = service.client.post("/respond", json=ask)
        assert response.headers["content-type"].startswith("text/event-stream")
        *parts, (last, done) = events(response)
        assert last == "done"
        assert len(parts) > 3
        shown = "".join(data.get("text") or data["title"] for _, data in parts)
        assert shown == "".join(segment["text"] for segment in done["segments"])

    def test_a_refused_stream_is_a_problem_not_a_stream(self, service: Any) -> None:
        ask = {"query": "word " * 1500, "conversation": [
            {"role": "user", "content": "word " * 1500} for _ in range(6)
        ], "stream": True}  # fmt: skip
        response = service.client.post("/respond", json=ask)
        assert response.status_code == 422
        assert response.json()["code"] == "prompt_too_large"


# Nearly uniform sampling over the whole vocabulary: the model all but never ends by itself.
LONG = {
    "query": "Hello", "max_tokens": 1500, "seed": 3, "temperature": 2.0, "top_p": 1.0, "top_k": 0,
}  # fmt: skip


class TestCancellation:
    def test_a_stream_that_is_closed_frees_the_engine(self, service: Any) -> None:
        aborted = service.metric("llm_auction_aborted_total")
        with service.client.stream("POST", "/respond", json={**LONG, "stream": True}) as part:
            # Held by name: an iterator that nobody holds closes the connection.
            parts = part.iter_bytes()
            next(parts)
            assert service.engine_requests() == 1
        assert service.eventually(lambda: service.engine_requests() == 0, within_s=1)
        # counted once it is recorded, just after
        assert service.eventually(
            lambda: service.metric("llm_auction_aborted_total") == aborted + 1, within_s=1
        )

    def test_a_client_that_hangs_up_frees_the_engine(self, service: Any) -> None:
        client = httpx.Client(base_url=service.url, timeout=2)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/respond", json=LONG)
        client.close()
        assert service.eventually(lambda: service.engine_requests() == 0, within_s=1)

    def test_the_answer_ends_at_its_deadline(self, service: Any) -> None:
        body = service.client.post("/respond", json={**LONG, "deadline_ms": 1500}).json()
        assert body["finish_reason"] == "deadline"
        assert 1400 < body["latency_ms"]["total"] < 2000
        assert body["answer"]
        assert service.eventually(lambda: service.engine_requests() == 0, within_s=1)


class TestOverload:
    def test_beyond_the_bound_requests_are_refused_and_the_others_finish(
        self, service: Any
    ) -> None:
        ask = {"query": "Tell me a long story.", "max_tokens": 60, "temperature": 1.0}
        refusal_ms = []

        def send(_: int) -> httpx.Response:
            begun = time.monotonic()
            response = service.client.post("/respond", json=ask)
            if response.status_code == 503:
                refusal_ms.append((time.monotonic() - begun) * 1000)
            return response

        with ThreadPoolExecutor(12) as pool:
            responses = list(pool.map(send, range(12)))
        refused = [r for r in responses if r.status_code == 503]
        served = [r for r in responses if r.status_code == 200]
        assert len(refused) + len(served) == 12
        assert len(served) >= 6
        assert refused
        assert all(r.json()["code"] == "overloaded" and r.headers["retry-after"] for r in refused)
        assert min(refusal_ms) < 100
        assert all(r.json()["finish_reason"] in {"stop", "length"} for r in served)


class TestIdempotency:
    def test_the_same_key_and_body_replay(self, service: Any) -> None:
        ask = {**QUERY, "candidates": CANDIDATES, "seed": None, "temperature": 1.2}
        headers = {"Idempotency-Key": "replay-1"}
        first = service.client.post("/respond", json=ask, headers=headers)
        again = service.client.post("/respond", json=ask, headers=headers)
        assert again.json() == first.json()
        assert again.headers["idempotency-replayed"] == "true"

    def test_another_body_is_a_conflict(self, service: Any) -> None:
        headers = {"Idempotency-Key": "conflict-1"}
        service.client.post("/respond", json=QUERY, headers=headers)
        other = service.client.post("/respond", json={**QUERY, "seed": 8}, headers=headers)
        assert other.status_code == 409
        assert other.json()["code"] == "idempotency_conflict"

    def test_two_at_once_generate_once(self, service: Any) -> None:
        ask = {**QUERY, "seed": None, "temperature": 1.2}
        generations = service.metric("llm_auction_respond_seconds_count")
        barrier = threading.Barrier(2)

        def send(_: int) -> Any:
            barrier.wait()
            headers = {"Idempotency-Key": "twice-1"}
            return service.client.post("/respond", json=ask, headers=headers).json()

        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(send, range(2))
        assert one == two
        assert service.metric("llm_auction_respond_seconds_count") == generations + 1
