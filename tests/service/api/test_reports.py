"""`/reports` over counters on a real Valkey: sums, money, CSV and what is left of budgets."""

import csv
import io
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api import problems, reports
from service.auction.ad import Ad
from service.auction.advertiser import Advertiser
from service.settings import Settings
from service.store.advertisers import Advertisers
from service.store.catalog import Catalog
from service.store.connection import Store, StoreUnavailable
from service.store.counters import Counters, Served
from service.store.ledger import ChargeRequest, Ledger

MONDAY, TUESDAY = date(2030, 1, 7), date(2030, 1, 8)
WEEK = {"from": "2030-01-07", "to": "2030-01-13"}
Fill = Callable[..., Any]


@dataclass
class Parts:
    settings: Settings
    catalog: Catalog
    counters: Counters


@pytest.fixture
def counters(store: Store, namespace: str) -> Counters:
    return Counters(store, namespace)


@pytest.fixture
async def client(catalog: Catalog, counters: Counters) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(reports.router())
    problems.install(app)
    app.state.services = Parts(
        Settings(auction={"currency": "EUR", "timezone": "Asia/Tokyo"}), catalog, counters
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        yield http


@pytest.fixture
def add(store: Store, namespace: str) -> Fill:
    """Adds to a hash in the deployment's slot, as the charge does."""

    async def add_to(key: str, **fields: int) -> None:
        mapping = {name.replace("__", "\x1f").replace("_1", "-1"): n for name, n in fields.items()}
        await store.run(lambda redis: redis.hset(f"{{{namespace}}}:{key}", mapping=mapping))

    return add_to


@pytest.fixture
async def _a_week(
    catalog: Catalog, counters: Counters, add: Fill, make_ad: Callable[..., Ad]
) -> None:
    """Ad-1 (adv-a) shown thrice, clicked twice; Ad-2 (adv-b) kept out; Ad-3 deleted since."""
    await catalog.put(make_ad("Ad-1", advertiser_id="adv-a", budget={"total": 10, "daily": 5}))
    await catalog.put(make_ad("Ad-2", advertiser_id="adv-b"))
    shown = Served(
        eligible=["Ad-1", "Ad-3"], shown={"Ad-1": "adv-a"}, excluded=[("Ad-2", "policy")]
    )
    await counters.record(MONDAY, shown)
    await counters.record(MONDAY, shown)
    await counters.record(TUESDAY, shown)
    await counters.record(TUESDAY, Served(eligible=["Ad-3"], shown={"Ad-3": "adv-a"}))
    await counters.record(TUESDAY, Served(is_held_out=True))
    await add(f"count:{MONDAY}", clicks__Ad_1=2, spend__Ad_1=2_500_001)


def amount(micros: int, text: str) -> dict[str, Any]:
    return {"micros": micros, "text": text}


async def rows(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    response = await client.get("/reports", params=WEEK | query)
    assert response.status_code == 200, response.text
    return list(response.json()["rows"])


@pytest.mark.usefixtures("_a_week")
class TestJson:
    async def test_by_ad(self, client: httpx.AsyncClient) -> None:
        first, second, third = await rows(client)
        assert first == {
            "ad_id": "Ad-1",
            "advertiser_id": "adv-a",
            "day": None,
            "eligible": 3,
            "shown": 3,
            "clicks": 2,
            "impressions_charged": 0,
            "ctr": "0.666667",
            "spend": amount(2_500_001, "2.500001"),
            "average_price": amount(1_250_000, "1.25"),
            "excluded": {},
            "remaining_total": amount(10_000_000, "10"),
            "remaining_daily": amount(5_000_000, "5"),
        }
        assert (second["ad_id"], second["excluded"], second["ctr"]) == ("Ad-2", {"policy": 3}, None)
        assert (third["ad_id"], third["eligible"], third["shown"]) == ("Ad-3", 4, 1)
        assert third["remaining_total"] is None

    async def test_by_advertiser_counts_deleted_ads_for_whom_they_were_shown(
        self, client: httpx.AsyncClient
    ) -> None:
        first, second = await rows(client, by="advertiser")
        assert (first["advertiser_id"], first["shown"], first["clicks"]) == ("adv-a", 4, 2)
        assert (second["advertiser_id"], second["excluded"]) == ("adv-b", {"policy": 3})

    async def test_by_day_has_a_row_for_every_day(self, client: httpx.AsyncClient) -> None:
        days = await rows(client, by="day")
        assert [day["day"] for day in days] == [f"2030-01-{n:02}" for n in range(7, 14)]
        assert [day["shown"] for day in days] == [2, 2, 0, 0, 0, 0, 0]
        assert [day["spend"]["micros"] for day in days] == [2_500_001, 0, 0, 0, 0, 0, 0]

    async def test_candidates_that_do_not_exist_count_in_days_and_total_only(
        self, client: httpx.AsyncClient, counters: Counters
    ) -> None:
        await counters.record(MONDAY, Served(excluded=[("Ad-404", "unknown")]))
        assert (await rows(client, by="day"))[0]["excluded"] == {"policy": 2, "unknown": 1}
        report = (await client.get("/reports", params=WEEK)).json()
        assert report["total"]["excluded"] == {"policy": 3, "unknown": 1}
        assert "Ad-404" not in [row["ad_id"] for row in report["rows"]]

    async def test_days_outside_are_left_out(self, client: httpx.AsyncClient) -> None:
        report = (await client.get("/reports", params={"from": TUESDAY, "to": TUESDAY})).json()
        assert (report["answers"], report["answers_held_out"]) == (3, 1)
        assert report["total"]["shown"] == 2
        assert report["total"]["spend"] == amount(0, "0")

    async def test_the_limit_keeps_whoever_spent_most_and_the_whole_total(
        self, client: httpx.AsyncClient
    ) -> None:
        report = (await client.get("/reports", params=WEEK | {"limit": 1})).json()
        assert [row["ad_id"] for row in report["rows"]] == ["Ad-1"]
        assert report["rows_left_off"] == 2
        assert report["total"]["eligible"] == 7

    async def test_currency_and_time_zone_are_told(self, client: httpx.AsyncClient) -> None:
        report = (await client.get("/reports", params=WEEK)).json()
        assert (report["currency"], report["timezone"]) == ("EUR", "Asia/Tokyo")


async def test_by_advertiser_counts_for_whoever_was_charged(
    client: httpx.AsyncClient,
    catalog: Catalog,
    counters: Counters,
    store: Store,
    namespace: str,
    make_ad: Callable[..., Ad],
) -> None:
    ledger, at = Ledger(store, namespace), datetime(2030, 1, 7, tzinfo=UTC)
    for advertiser, clicks in (("adv-a", 2), ("adv-b", 1)):
        await catalog.put(make_ad("Ad-1", advertiser_id=advertiser))
        for click in range(clicks):
            await counters.record(MONDAY, Served(shown={"Ad-1": advertiser}))
            response_id = f"resp_{advertiser}_{click}"
            await ledger.charge(
                ChargeRequest(response_id, "Ad-1", advertiser, "click", 500, 500, 1, at, 60)
            )
    advertisers = await rows(client, by="advertiser")
    assert [
        (row["advertiser_id"], row["shown"], row["clicks"], row["spend"]["micros"])
        for row in advertisers
    ] == [("adv-a", 2, 2, 1_000), ("adv-b", 1, 1, 500)]
    accounts = await counters.advertiser_accounts(["adv-a", "adv-b"], MONDAY)
    assert [account.spent_today_micros for account in accounts.values()] == [1_000, 500]
    (ad,) = await rows(client, by="ad")
    assert (ad["advertiser_id"], ad["shown"], ad["spend"]["micros"]) == ("adv-b", 3, 1_500)


async def test_what_is_left_of_an_advertisers_budgets(
    client: httpx.AsyncClient, counters: Counters, store: Store, namespace: str
) -> None:
    tokyo = (datetime.now(UTC) + timedelta(hours=9)).date()
    for advertiser in ("adv_1", "adv_2"):
        shown = {f"Ad-of-{advertiser}": advertiser}
        await counters.record(tokyo, Served(shown=shown))
    budget = {"total": "20", "daily": "5"}
    entered = Advertiser.model_validate({"advertiser_id": "adv_1", "budget": budget})
    await Advertisers(store, namespace).put(entered)
    await store.run(
        lambda redis: redis.hset(f"{{{namespace}}}:spent:advertisers:total", "adv_1", 3_000_000)
    )
    await store.run(
        lambda redis: redis.hset(f"{{{namespace}}}:spent:advertisers:{tokyo}", "adv_1", 1_000_000)
    )
    first, second = (await client.get("/reports", params={"by": "advertiser"})).json()["rows"]
    assert first["remaining_total"] == amount(17_000_000, "17")
    assert first["remaining_daily"] == amount(4_000_000, "4")
    assert (second["advertiser_id"], second["remaining_total"]) == ("adv_2", None)


async def test_what_is_left_counts_today_in_the_deployments_time_zone(
    client: httpx.AsyncClient,
    catalog: Catalog,
    counters: Counters,
    add: Fill,
    make_ad: Callable[..., Ad],
) -> None:
    tokyo = (datetime.now(UTC) + timedelta(hours=9)).date()
    await catalog.put(make_ad("Ad-1", budget={"total": 10, "daily": 5}))
    await counters.record(tokyo, Served(eligible=["Ad-1"]))
    await add("spent:total", Ad_1=10_500_000)
    await add(f"spent:{tokyo}", Ad_1=1_000_000)
    await add(f"spent:{tokyo - timedelta(days=1)}", Ad_1=2_000_000)
    (row,) = (await client.get("/reports")).json()["rows"]
    assert row["remaining_daily"] == amount(4_000_000, "4")
    assert row["remaining_total"] == amount(0, "0")  # never below


@pytest.mark.usefixtures("_a_week")
class TestCsv:
    @pytest.mark.parametrize(
        ("query", "headers"),
        [({"format": "csv"}, {}), ({}, {"Accept": "text/csv"})],
    )
    async def test_it_has_a_line_a_row(
        self, client: httpx.AsyncClient, query: dict[str, str], headers: dict[str, str]
    ) -> None:
        response = await client.get("/reports", params=WEEK | query, headers=headers)
        assert response.headers["content-type"].startswith("text/csv")
        assert "ads-2030-01-07-2030-01-13.csv" in response.headers["content-disposition"]
        first, second, third = csv.DictReader(io.StringIO(response.text))
        assert (first["ad_id"], first["spend"], first["ctr"]) == ("Ad-1", "2.500001", "0.666667")
        assert (first["remaining_total"], first["currency"]) == ("10", "EUR")
        assert (second["average_price"], second["excluded_policy"]) == ("", "3")
        assert third["excluded_policy"] == "0"

    async def test_json_stays_the_default(self, client: httpx.AsyncClient) -> None:
        headers = {"Accept": "application/json, text/csv"}
        response = await client.get("/reports", params=WEEK, headers=headers)
        assert response.headers["content-type"] == "application/json"

    async def test_no_cell_is_a_formula(
        self, client: httpx.AsyncClient, catalog: Catalog, counters: Counters, make_ad: Fill
    ) -> None:
        await catalog.put(make_ad("-1", advertiser_id="-2"))
        await counters.record(MONDAY, Served(eligible=["-1"]))
        response = await client.get("/reports", params=WEEK | {"format": "csv"})
        cells = [cell for line in csv.reader(io.StringIO(response.text)) for cell in line]
        assert {"'-1", "'-2"} <= set(cells)
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]


class TestHours:
    async def test_spend_of_all_ads_and_of_one(
        self, client: httpx.AsyncClient, catalog: Catalog, add: Fill, make_ad: Callable[..., Ad]
    ) -> None:
        await catalog.put(make_ad("Ad-1", budget={"daily": "7.5"}))
        await add(f"count:hour:{MONDAY}", spend__Ad_1__00=1, spend__Ad_1__23=2, spend__other__23=4)
        day = {"day": MONDAY.isoformat()}
        everything = (await client.get("/reports/hours", params=day)).json()
        assert [hour["micros"] for hour in everything["hours"]] == [1] + [0] * 22 + [6]
        assert everything["daily_budget"] is None
        one = (await client.get("/reports/hours", params=day | {"ad_id": "Ad-1"})).json()
        assert [hour["micros"] for hour in one["hours"]] == [1] + [0] * 22 + [2]
        assert one["daily_budget"] == amount(7_500_000, "7.5")


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2030-01-08", "to": "2030-01-07"},
        {"from": "2029-01-01", "to": "2030-01-07"},
        {"from": "yesterday"},
        {"to": "0001-01-03"},
        {"to": "1999-12-31", "from": "1999-12-01"},
        {"by": "user"},
        {"limit": "0"},
        {"format": "xml"},
    ],
)
async def test_wrong_queries_are_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    response = await client.get("/reports", params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"].startswith("query/")


async def test_a_year_is_not_too_long(client: httpx.AsyncClient) -> None:
    year = {"from": "2028-01-01", "to": "2028-12-31", "by": "day"}
    assert len((await client.get("/reports", params=year)).json()["rows"]) == 366


async def test_a_store_that_is_away_is_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: Counters, day: date) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(Counters, "read", away)
    response = await client.get("/reports")
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert "retry-after" in response.headers
