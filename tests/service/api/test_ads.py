import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api import ads, problems
from service.api.ads import MAX_BAD_ROWS, merge_patch
from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.connection import open_store

MakeAd = Callable[..., Ad]
GOOD = {
    "title": "Trailhead Boots Ad-1",
    "category": "hiking boots",
    "landing_url": "https://www.trailhead-boots.example/",
    "advertiser_id": "adv-trailhead",
}


@dataclass
class OnlyACatalog:
    catalog: Catalog


@asynccontextmanager
async def serving(catalog: Catalog) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(ads.router())
    problems.install(app)
    app.state.services = OnlyACatalog(catalog)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


@pytest.fixture
async def http(catalog: Catalog) -> AsyncGenerator[httpx.AsyncClient]:
    async with serving(catalog) as client:
        yield client


def places(response: httpx.Response) -> list[str]:
    assert response.headers["content-type"] == "application/problem+json"
    return [error["loc"] for error in response.json()["errors"]]


class TestPutAndGet:
    async def test_a_new_ad_is_201_and_a_replaced_one_200(self, http: httpx.AsyncClient) -> None:
        first = await http.put("/ads/Ad-1", json={**GOOD, "budget": {"daily": 12.50}})
        again = await http.put("/ads/Ad-1", json={**GOOD, "ad_id": "Ad-1", "reserve": "1.5"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["budget"] == {"total": None, "daily": "12.5"}
        found = await http.get("/ads/Ad-1")
        assert (
            found.json()
            == again.json()
            == {
                **GOOD,
                "ad_id": "Ad-1",
                "description": "",
                "status": "active",
                "image_url": None,
                "languages": [],
                "blocked_topics": [],
                "reserve": "1.5",
                "budget": {"total": None, "daily": None},
            }
        )

    async def test_what_was_got_can_be_put(self, http: httpx.AsyncClient) -> None:
        await http.put("/ads/Ad-1", json={**GOOD, "reserve": 0.1, "budget": {"total": 7}})
        found = (await http.get("/ads/Ad-1")).json()
        assert (await http.put("/ads/Ad-1", json=found)).json() == found

    async def test_another_id_in_the_body_is_refused(self, http: httpx.AsyncClient) -> None:
        response = await http.put("/ads/Ad-1", json={**GOOD, "ad_id": "Ad-2"})
        assert (response.status_code, places(response)) == (422, ["/ad_id"])

    async def test_every_wrong_field_is_told(self, http: httpx.AsyncClient) -> None:
        wrong = {**GOOD, "title": "a@[b", "budget": {"total": -1}, "colour": "red"}
        response = await http.put("/ads/Ad-1", json=wrong)
        assert response.status_code == 422
        assert places(response) == ["/title", "/budget/total", "/colour"]

    async def test_an_unknown_ad_is_404(self, http: httpx.AsyncClient) -> None:
        response = await http.get("/ads/Ad-404")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize("ad_id", ["Ad%201", "x" * 65, "%C3%A9"])
    async def test_an_impossible_id_is_422(self, http: httpx.AsyncClient, ad_id: str) -> None:
        response = await http.get(f"/ads/{ad_id}")
        assert (response.status_code, places(response)) == (422, ["path/ad_id"])

    async def test_a_body_that_is_no_json_is_400(self, http: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json"}
        response = await http.put("/ads/Ad-1", content="{", headers=headers)
        assert response.status_code == 400


class TestPatch:
    @pytest.fixture(autouse=True)
    async def _one_ad(self, catalog: Catalog, make_ad: MakeAd) -> None:
        await catalog.put(make_ad(reserve=1, budget={"total": 100, "daily": 5}))

    async def test_changes_what_it_names_and_nothing_else(self, http: httpx.AsyncClient) -> None:
        before = (await http.get("/ads/Ad-1")).json()
        patch = {"status": "paused", "budget": {"daily": None}, "reserve": None}
        response = await http.patch("/ads/Ad-1", json=patch)
        assert response.status_code == 200
        changed = {"status": "paused", "budget": {"total": "100", "daily": None}, "reserve": "0"}
        assert response.json() == (await http.get("/ads/Ad-1")).json() == {**before, **changed}

    async def test_takes_the_content_type_of_its_standard(self, http: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/merge-patch+json"}
        response = await http.patch("/ads/Ad-1", content='{"reserve": 2}', headers=headers)
        assert response.json()["reserve"] == "2"

    @pytest.mark.parametrize(
        ("patch", "place"),
        [
            ({"title": None}, "/title"),
            ({"ad_id": "Ad-2"}, "/ad_id"),
            ({"ad_id": None}, "/ad_id"),
            ({"budget": {"total": "x"}}, "/budget/total"),
            ({"budget": 5}, "/budget"),
            ({"colour": "red"}, "/colour"),
        ],
    )
    async def test_a_change_that_makes_no_ad_is_refused_and_not_made(
        self, http: httpx.AsyncClient, patch: dict[str, Any], place: str
    ) -> None:
        before = (await http.get("/ads/Ad-1")).json()
        response = await http.patch("/ads/Ad-1", json=patch)
        assert (response.status_code, places(response)) == (422, [place])
        assert (await http.get("/ads/Ad-1")).json() == before

    async def test_an_unknown_ad_is_404(self, http: httpx.AsyncClient) -> None:
        response = await http.patch("/ads/Ad-404", json={"status": "paused"})
        assert response.status_code == 404


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_its_standard_shows(target: Any, patch: Any, result: Any) -> None:
    """The cases of RFC 7396, appendix A."""
    assert merge_patch(target, patch) == result


async def test_delete(http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd) -> None:
    await catalog.put(make_ad())
    response = await http.delete("/ads/Ad-1")
    assert (response.status_code, response.content) == (204, b"")
    assert (await http.delete("/ads/Ad-1")).status_code == 404


class TestList:
    async def test_pages_lead_to_every_ad(
        self, http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd
    ) -> None:
        await catalog.import_many(make_ad(f"Ad-{number}") for number in range(5))
        seen, cursor = [], None
        for _ in range(3):
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/ads", params=params)).json()
            seen += [ad["ad_id"] for ad in page["ads"]]
            cursor = page["cursor"]
        assert (seen, cursor) == ([f"Ad-{number}" for number in range(5)], None)

    async def test_an_empty_catalogue_is_an_empty_page(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/ads")).json() == {"ads": [], "cursor": None}

    @pytest.mark.parametrize("limit", [0, 1_001, "many"])
    async def test_a_wrong_limit_is_422(self, http: httpx.AsyncClient, limit: Any) -> None:
        response = await http.get("/ads", params={"limit": limit})
        assert (response.status_code, places(response)) == (422, ["query/limit"])


class TestImport:
    ROWS = (
        json.dumps({**GOOD, "ad_id": "Ad-1"}),
        json.dumps({**GOOD, "ad_id": "Ad-2", "title": "a@[b"}),
        "nonsense",
        json.dumps({**GOOD, "ad_id": "Ad-3"}),
    )

    async def post(
        self, http: httpx.AsyncClient, rows: tuple[str, ...], skip_bad: bool = False
    ) -> httpx.Response:
        return await http.post(
            "/ads/import",
            content="\n".join(rows).encode(),
            headers={"content-type": "application/x-ndjson; charset=utf-8"},
            params={"skip_bad": skip_bad},
        )

    async def test_bad_rows_keep_everything_out(
        self, http: httpx.AsyncClient, catalog: Catalog
    ) -> None:
        response = await self.post(http, self.ROWS)
        assert (response.status_code, places(response)) == (422, ["line/2/title", "line/3"])
        assert await catalog.count() == 0

    async def test_bad_rows_can_be_skipped(
        self, http: httpx.AsyncClient, catalog: Catalog, make_ad: MakeAd
    ) -> None:
        await catalog.put(make_ad("Ad-3"))
        response = await self.post(http, self.ROWS, skip_bad=True)
        result = response.json()
        assert response.status_code == 200
        assert (result["created"], result["replaced"], result["skipped"]) == (1, 1, 2)
        assert [(bad["line"], bad["field"]) for bad in result["bad"]] == [(2, "title"), (3, "")]
        assert await catalog.count() == 2

    async def test_a_file_without_a_good_row_is_refused_whole(
        self, http: httpx.AsyncClient
    ) -> None:
        response = await http.post(
            "/ads/import?skip_bad=true", content="id,name\n", headers={"content-type": "text/csv"}
        )
        assert response.status_code == 422
        assert places(response)[:2] == ["line/1/id", "line/1/name"]

    async def test_csv(self, http: httpx.AsyncClient, catalog: Catalog) -> None:
        body = (
            "ad_id,title,category,landing_url,advertiser_id,budget_daily\n"
            "Ad-1,Boots,boots,https://boots.example/,adv-1,12.50\n"
        )
        headers = {"content-type": "text/csv"}
        response = await http.post("/ads/import", content=body, headers=headers)
        assert response.json() == {"created": 1, "replaced": 0, "skipped": 0, "bad": []}
        found = await catalog.get("Ad-1")
        assert found is not None
        assert found.budget.daily_micros == 12_500_000

    async def test_too_many_bad_rows_end_the_reading(
        self, http: httpx.AsyncClient, catalog: Catalog
    ) -> None:
        rows = (self.ROWS[0], *["x"] * (MAX_BAD_ROWS + 5))
        response = await self.post(http, rows, skip_bad=True)
        assert response.status_code == 422
        assert f"line {MAX_BAD_ROWS + 2}" in response.json()["detail"]
        assert await catalog.count() == 0

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
    async def test_another_content_type_is_415(
        self, http: httpx.AsyncClient, content_type: str
    ) -> None:
        headers = {"content-type": content_type}
        response = await http.post("/ads/import", content=b"{}", headers=headers)
        assert response.status_code == 415
        assert "text/csv" in response.json()["detail"]


async def test_without_its_store_every_route_is_a_503_that_says_when_to_retry(
    tmp_path: Path,
) -> None:
    settings = StoreSettings(timeout_ms=100, breaker_failures=1, breaker_cooldown_ms=60_000)
    async with open_store(settings, tmp_path, print) as store:
        info = await store.run(lambda redis: redis.info("server"))
        os.kill(int(info["process_id"]), signal.SIGSTOP)
        try:
            async with serving(Catalog(store, "test")) as http:
                ndjson = {"content-type": "application/x-ndjson"}
                row = json.dumps({**GOOD, "ad_id": "Ad-1"})
                calls: list[Awaitable[httpx.Response]] = [
                    http.get("/ads"),
                    http.get("/ads/Ad-1"),
                    http.put("/ads/Ad-1", json=GOOD),
                    http.patch("/ads/Ad-1", json={}),
                    http.delete("/ads/Ad-1"),
                    http.post("/ads/import", content=row, headers=ndjson),
                ]
                for call in calls:
                    response = await call
                    assert response.status_code == 503
                    assert response.json()["code"] == "store_unavailable"
                    assert response.headers["retry-after"] == "1"
        finally:
            os.kill(int(info["process_id"]), signal.SIGCONT)


def test_the_api_description_holds_every_status() -> None:
    app = FastAPI()
    app.include_router(ads.router())
    paths = app.openapi()["paths"]
    documented = {
        f"{method} {path}": set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    always = {"401", "403", "422", "503"}
    body = {"400", "413"}
    assert documented == {
        "get /ads": always | {"200"},
        "post /ads/import": always | body | {"200", "415"},
        "get /ads/{ad_id}": always | {"200", "404"},
        "put /ads/{ad_id}": always | body | {"200", "201"},
        "patch /ads/{ad_id}": always | body | {"200", "404"},
        "delete /ads/{ad_id}": always | {"204", "404"},
    }
    patch = paths["/ads/{ad_id}"]["patch"]["requestBody"]["content"]
    described = patch["application/merge-patch+json"]["schema"]
    assert {"title", "reserve", "budget"} < described["properties"].keys()
    assert "application/x-ndjson" in paths["/ads/import"]["post"]["requestBody"]["content"]
