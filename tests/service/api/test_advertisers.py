"""`/advertisers` and top-ups over HTTP, on a real Valkey."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api import advertisers, problems, top_ups
from service.auction.ad import Ad
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.connection import Store, StoreUnavailable

MakeAd = Callable[..., Ad]
ONE = "/advertisers/adv-1"


@dataclass
class Parts:
    catalog: Catalog
    advertisers: Advertisers


@pytest.fixture
async def http(store: Store, namespace: str, catalog: Catalog) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(advertisers.router())
    app.include_router(top_ups.router())
    problems.install(app)
    app.state.services = Parts(catalog, Advertisers(store, namespace))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def places(response: httpx.Response) -> list[str]:
    assert response.headers["content-type"] == "application/problem+json"
    return [error["loc"] for error in response.json()["errors"]]


class TestPutAndGet:
    async def test_a_new_one_is_201_and_a_replaced_one_200(self, http: httpx.AsyncClient) -> None:
        first = await http.put(ONE, json={"budget": {"daily": 12.50}})
        again = await http.put(ONE, json={"advertiser_id": "adv-1", "status": "paused"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == {
            "advertiser_id": "adv-1",
            "status": "active",
            "budget": {"total": None, "daily": "12.5"},
        }
        paused = {"status": "paused", "budget": {"total": None, "daily": None}}
        found = (await http.get(ONE)).json()
        assert found == again.json() == {"advertiser_id": "adv-1", **paused}
        assert (await http.put(ONE, json=found)).json() == found

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            ({"advertiser_id": "adv-2"}, "/advertiser_id"),
            ({"status": "asleep"}, "/status"),
            ({"budget": {"total": -1}}, "/budget/total"),
            ({"colour": "red"}, "/colour"),
        ],
    )
    async def test_a_wrong_field_is_told(
        self, http: httpx.AsyncClient, body: dict[str, Any], place: str
    ) -> None:
        response = await http.put(ONE, json=body)
        assert (response.status_code, places(response)) == (422, [place])
        assert (await http.get(ONE)).status_code == 404

    async def test_pages_hold_all_in_the_order_of_ids(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/advertisers")).json() == {"advertisers": [], "cursor": None}
        for number in (3, 1, 2):
            await http.put(f"/advertisers/adv-{number}", json={})
        first = (await http.get("/advertisers", params={"limit": 2})).json()
        rest = (await http.get("/advertisers", params={"cursor": first["cursor"]})).json()
        ids = [a["advertiser_id"] for a in first["advertisers"] + rest["advertisers"]]
        assert ids == ["adv-1", "adv-2", "adv-3"]
        assert rest["cursor"] is None


class TestPatchAndDelete:
    async def test_a_patch_changes_what_it_names(self, http: httpx.AsyncClient) -> None:
        await http.put(ONE, json={"budget": {"total": 100, "daily": 5}})
        response = await http.patch(ONE, json={"status": "paused", "budget": {"daily": None}})
        assert response.json() == (await http.get(ONE)).json()
        assert response.json()["status"] == "paused"
        assert response.json()["budget"] == {"total": "100", "daily": None}

    @pytest.mark.parametrize(
        ("patch", "place"),
        [
            ({"advertiser_id": "adv-2"}, "/advertiser_id"),
            ({"advertiser_id": None}, "/advertiser_id"),
            ({"budget": {"total": "x"}}, "/budget/total"),
        ],
    )
    async def test_a_wrong_patch_changes_nothing(
        self, http: httpx.AsyncClient, patch: dict[str, Any], place: str
    ) -> None:
        before = (await http.put(ONE, json={"budget": {"total": 100}})).json()
        response = await http.patch(ONE, json=patch)
        assert (response.status_code, places(response)) == (422, [place])
        assert (await http.get(ONE)).json() == before

    async def test_a_deleted_one_is_gone(self, http: httpx.AsyncClient) -> None:
        await http.put(ONE, json={})
        assert (await http.delete(ONE)).status_code == 204
        for call in (http.get(ONE), http.delete(ONE), http.patch(ONE, json={})):
            assert (await call).status_code == 404


@pytest.mark.parametrize("path", ["/ads/Ad-1", ONE])
class TestTopUp:
    @pytest.fixture(autouse=True)
    async def _with_budgets(
        self, http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd
    ) -> None:
        await catalog.put(make_ad(budget={"total": 10, "daily": 2}))
        await http.put(ONE, json={"budget": {"total": 10, "daily": 2}})

    async def test_it_raises_the_total_budget(self, http: httpx.AsyncClient, path: str) -> None:
        response = await http.post(f"{path}/top-up", json={"amount": "2.500001"})
        assert response.status_code == 200
        assert response.json()["budget"] == {"total": "12.500001", "daily": "2"}
        assert "idempotency-replayed" not in response.headers

    async def test_a_key_tops_up_once(self, http: httpx.AsyncClient, path: str) -> None:
        for replayed in (None, "true", "true"):
            response = await http.post(
                f"{path}/top-up", json={"amount": 5}, headers={"Idempotency-Key": "june"}
            )
            assert response.headers.get("idempotency-replayed") == replayed
            assert response.json()["budget"]["total"] == "15"

    async def test_a_key_with_another_amount_is_a_conflict(
        self, http: httpx.AsyncClient, path: str
    ) -> None:
        headers = {"Idempotency-Key": "june"}
        await http.post(f"{path}/top-up", json={"amount": 5}, headers=headers)
        response = await http.post(f"{path}/top-up", json={"amount": 6}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (409, "idempotency_conflict")

    async def test_many_at_once_all_count(self, http: httpx.AsyncClient, path: str) -> None:
        await asyncio.gather(*(http.post(f"{path}/top-up", json={"amount": 1}) for _ in range(12)))
        same = {"Idempotency-Key": "july"}
        await asyncio.gather(
            *(http.post(f"{path}/top-up", json={"amount": 1}, headers=same) for _ in range(12))
        )
        last = await http.post(f"{path}/top-up", json={"amount": 1})
        assert last.json()["budget"]["total"] == str(10 + 12 + 1 + 1)

    @pytest.mark.parametrize("amount", [0, -1, "0", "1.0000001", True, 10**9])
    async def test_a_wrong_amount_is_told(
        self, http: httpx.AsyncClient, path: str, amount: object
    ) -> None:
        response = await http.post(f"{path}/top-up", json={"amount": amount})
        assert (response.status_code, places(response)) == (422, ["/amount"])

    async def test_without_a_total_budget_there_is_nothing_to_top_up(
        self, http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd, path: str
    ) -> None:
        await catalog.put(make_ad())
        await http.put(ONE, json={})
        response = await http.post(f"{path}/top-up", json={"amount": 1})
        assert response.status_code == 422
        assert "no total budget" in response.json()["detail"]

    async def test_a_key_is_known_when_the_limit_is_gone(
        self, http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd, path: str
    ) -> None:
        headers = {"Idempotency-Key": "june"}
        await http.post(f"{path}/top-up", json={"amount": 5}, headers=headers)
        await catalog.put(make_ad())
        await http.put(ONE, json={})
        response = await http.post(f"{path}/top-up", json={"amount": 5}, headers=headers)
        assert response.headers["idempotency-replayed"] == "true"

    async def test_what_is_not_there_is_404(self, http: httpx.AsyncClient, path: str) -> None:
        response = await http.post(f"{path}-other/top-up", json={"amount": 1})
        assert response.status_code == 404


async def test_the_same_key_for_another_is_another_top_up(http: httpx.AsyncClient) -> None:
    for number in (1, 2):
        await http.put(f"/advertisers/adv-{number}", json={"budget": {"total": 1}})
        response = await http.post(
            f"/advertisers/adv-{number}/top-up",
            json={"amount": number},
            headers={"Idempotency-Key": "june"},
        )
        assert response.json()["budget"]["total"] == str(1 + number)


async def test_a_store_that_is_away_is_503(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(store, "run", away)
    for call in (
        http.get(ONE),
        http.put(ONE, json={}),
        http.post(f"{ONE}/top-up", json={"amount": 1}),
    ):
        response = await call
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert "retry-after" in response.headers


async def test_the_api_description_can_be_made(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert set(paths[ONE.replace("adv-1", "{advertiser_id}")]) == {"get", "put", "patch", "delete"}
    assert "409" in paths["/ads/{ad_id}/top-up"]["post"]["responses"]
