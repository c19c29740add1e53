"""From a question to a charge, on a real service and a real Valkey.

The model is a stand-in that always inserts an ad: what is tested here is what comes after it.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

ASK = {
    "query": "Which running shoes are good for a beginner?",
    "candidates": [{"ad_id": "Ad-1001", "bid": 1.25}],
    "user_id": "user-1",
}


@pytest.fixture(scope="module")
def stand_in() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "loadtest.fake_vllm", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.05)
    yield url
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture(scope="module")
def shop(start_service: Callable[..., Any], stand_in: str) -> Any:
    return start_service(
        LLM_AUCTION_ENGINE__KIND="remote",
        LLM_AUCTION_ENGINE__MODEL="fake",
        LLM_AUCTION_ENGINE__URL=stand_in,
    )


def spend_of(shop: Any, ad_id: str) -> tuple[int, int]:
    """Clicks and micros of an ad in the reports."""
    rows = shop.client.get("/reports", params={"by": "ad"}).json()["rows"]
    row = next((row for row in rows if row["ad_id"] == ad_id), None)
    return (row["clicks"], row["spend"]["micros"]) if row else (0, 0)


class TestClick:
    def test_the_first_is_charged_the_bid_and_the_second_only_redirected(self, shop: Any) -> None:
        before = spend_of(shop, "Ad-1001")
        [ad] = shop.client.post("/respond", json=ASK).json()["ads"]
        for _ in range(2):
            response = httpx.get(ad["click_url"])
            assert response.status_code == 302
            assert response.headers["location"] == ad["landing_url"]
        clicks, micros = spend_of(shop, "Ad-1001")
        assert (clicks - before[0], micros - before[1]) == (1, 1_250_000)

    def test_a_forged_token_is_nobodys(self, shop: Any) -> None:
        [ad] = shop.client.post("/respond", json=ASK).json()["ads"]
        forged = ad["click_url"][:-1] + ("A" if ad["click_url"][-1] != "A" else "B")
        assert httpx.get(forged).status_code == 404

    def test_a_probe_cannot_be_clicked(self, shop: Any) -> None:
        [ad] = shop.client.post("/respond", json={**ASK, "probe": True}).json()["ads"]
        assert ad["click_url"] is None


class TestReceipt:
    def test_says_what_was_charged_and_is_genuine(self, shop: Any) -> None:
        body = shop.client.post("/respond", json=ASK).json()
        httpx.get(body["ads"][0]["click_url"])
        receipt = shop.client.get(f"/responses/{body['response_id']}")
        assert receipt.status_code == 200
        assert "beginner" not in receipt.text
        assert "1250000" in receipt.text
        checked = subprocess.run(
            [
                sys.executable, "-m", "service.cli", "receipt", "verify",
                body["response_id"], "--url", shop.url,
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr

    def test_erasing_a_user_leaves_nothing_of_them(self, shop: Any) -> None:
        ask = {**ASK, "user_id": "user-2"}
        body = shop.client.post("/respond", json=ask).json()
        assert body["response_id"] in shop.client.get("/users/user-2/data").text
        assert shop.client.delete("/users/user-2/data").status_code == 200
        assert shop.client.get(f"/responses/{body['response_id']}").status_code == 404


class TestHoldout:
    def test_held_out_users_get_no_ads(
        self, start_service: Callable[..., Any], stand_in: str
    ) -> None:
        service = start_service(
            LLM_AUCTION_ENGINE__KIND="remote",
            LLM_AUCTION_ENGINE__MODEL="fake",
            LLM_AUCTION_ENGINE__URL=stand_in,
            LLM_AUCTION_AUCTION__HOLDOUT_SHARE="1",
        )
        body = service.client.post("/respond", json=ASK).json()
        assert (body["ads"], body["holdout"]) == ([], True)


def test_a_charge_outlives_the_death_of_its_store(shop: Any) -> None:
    """What was acknowledged is there after SIGKILL; `loadtest.crash` does this many times over."""
    [ad] = shop.client.post("/respond", json=ASK).json()["ads"]
    token = ad["click_url"].rpartition("/")[2]
    report = {"token": token, "client_event_id": "evt-1"}
    first = shop.client.post("/v1/clicks", json=report).json()
    assert first["state"] == "charged"
    valkey = shop.child("valkey")
    subprocess.run(["kill", "-9", str(valkey)], check=True)

    def is_replayed() -> bool:
        response = shop.client.post("/v1/clicks", json=report)
        return response.status_code == 200 and bool(response.json()["replayed"])

    assert shop.eventually(is_replayed, within_s=30)
    again = shop.client.post("/v1/clicks", json=report).json()
    assert (again["charge_id"], again["amount_micros"]) == (first["charge_id"], 1_250_000)
    assert again["state"] == "duplicate"
