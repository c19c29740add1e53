"""`POST /v1/clicks` on a real Valkey: each state, and events that are told twice."""

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from recorded import Accounts, accounts, charged, click_client

from service.auction.ad import Ad
from service.store.connection import Store


@pytest.fixture
def parts(store: Store, namespace: str) -> Accounts:
    return accounts(store, namespace)


@pytest.fixture
async def ad(parts: Accounts, make_ad: Callable[..., Ad]) -> Ad:
    entered = make_ad("Ad-1", budget={"total": 1})
    await parts.catalog.put(entered)
    return entered


@pytest.fixture
async def http(parts: Accounts) -> AsyncGenerator[httpx.AsyncClient]:
    async with click_client(parts) as opened:
        yield opened


def report(http: httpx.AsyncClient, token: str, event_id: str | None = None) -> Any:
    return http.post("/v1/clicks", json={"token": token, "client_event_id": event_id})


async def test_the_first_report_is_charged(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient
) -> None:
    _, [token] = await parts.answer(ad)
    result = (await report(http, token, "evt-1")).json()
    assert result.pop("charge_id").startswith("chg_")
    assert result == {"state": "charged", "amount_micros": 250_000, "replayed": False}


async def test_the_same_event_again_is_a_replay_of_the_charge(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient
) -> None:
    _, [token] = await parts.answer(ad)
    first = (await report(http, token, "evt-1")).json()
    second = (await report(http, token, "evt-1")).json()
    assert second == {**first, "state": "duplicate", "replayed": True}
    assert await charged(parts) == [250_000]


@pytest.mark.parametrize("event_id", ["evt-2", None])
async def test_another_event_is_a_duplicate(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient, event_id: str | None
) -> None:
    _, [token] = await parts.answer(ad)
    await report(http, token, "evt-1")
    assert (await report(http, token, event_id)).json() == {
        "state": "duplicate",
        "charge_id": None,
        "amount_micros": 0,
        "replayed": False,
    }


async def test_a_link_that_was_followed_is_not_charged_again(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient
) -> None:
    _, [token] = await parts.answer(ad)
    await http.get(f"/c/{token}")
    assert (await report(http, token)).json()["state"] == "duplicate"
    assert await charged(parts) == [250_000]


async def test_expired(parts: Accounts, ad: Ad, http: httpx.AsyncClient) -> None:
    _, [token] = await parts.answer(ad, given_at=datetime.now(UTC) - timedelta(days=2))
    assert (await report(http, token)).json()["state"] == "expired"


async def test_budget_exhausted(parts: Accounts, ad: Ad, http: httpx.AsyncClient) -> None:
    _, [token] = await parts.answer(ad, bid_micros=1_000_001)
    assert (await report(http, token)).json()["state"] == "budget_exhausted"


async def test_forged_and_unrecorded_are_invalid(
    parts: Accounts, ad: Ad, http: httpx.AsyncClient
) -> None:
    _, [token] = await parts.answer(ad, is_recorded=False)
    assert (await report(http, token)).json()["state"] == "invalid"
    assert (await report(http, "x" * 90)).json()["state"] == "invalid"
    assert parts.metrics.seen() == {"unrecorded": 1, "forged": 1}


@pytest.mark.parametrize(
    "body",
    [{}, {"token": ""}, {"token": "a", "client_event_id": "b c"}, {"token": "a", "x": 1}],
)
async def test_a_wrong_body_is_a_422(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await http.post("/v1/clicks", json=body)).status_code == 422
