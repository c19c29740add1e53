"""`report` as a user types it, against the routes on a loopback port."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date

import httpx
import pytest
import typer
import uvicorn
from click.testing import Result
from fastapi import FastAPI
from typer.testing import CliRunner

from service import cli_report
from service.api import problems, reports
from service.auction.ad import Ad
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.connection import Store
from service.store.counters import Counters, Served

MONDAY = date(2030, 1, 7)
WEEK = ("--from", "2030-01-07", "--to", "2030-01-13")
Run = Callable[..., Awaitable[Result]]


@dataclass
class Parts:
    settings: Settings
    catalog: Catalog
    counters: Counters


@pytest.fixture
async def url(
    catalog: Catalog, store: Store, namespace: str, make_ad: Callable[..., Ad]
) -> AsyncGenerator[str]:
    counters = Counters(store, namespace)
    await catalog.put(make_ad("Ad-1", advertiser_id="adv-a", budget={"daily": 8}))
    served = Served(eligible=["Ad-1"], shown={"Ad-1": "adv-a"}, excluded=[("Ad-2", "paused")])
    for _ in range(4):
        await counters.record(MONDAY, served)
    spent = {"clicks\x1fAd-1": 1, "spend\x1fAd-1": 2_500_000}
    hours = {"spend\x1fAd-1\x1f10": 2_000_000, "spend\x1fAd-1\x1f12": 2_000_000}
    day = f"{{{namespace}}}:count:{MONDAY}"
    await store.run(lambda redis: redis.hset(day, mapping=spent))
    by_hour = f"{{{namespace}}}:count:hour:{MONDAY}"
    await store.run(lambda redis: redis.hset(by_hour, mapping=hours))
    app = FastAPI()
    app.include_router(reports.router())
    problems.install(app)
    app.state.services = Parts(Settings(), catalog, counters)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
def run(url: str) -> Run:
    app = typer.Typer()
    app.command()(cli_report.report)
    environment = {"LLM_AUCTION_URL": url, "COLUMNS": "200"}

    async def invoke(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environment)

    return invoke


async def test_the_table_shows_money_rates_and_reasons(run: Run) -> None:
    result = await run(*WEEK)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "Ad-1" in line)
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == ["Ad-1", "4", "4", "1", "25.00%", "2.5", "2.5", "–", "8", ""]
    assert "paused 4" in result.stdout
    assert "4 answers, 0 of them held out of ads." in result.stdout


async def test_by_advertiser(run: Run) -> None:
    assert "adv-a" in (await run("--by", "advertiser", *WEEK)).stdout


async def test_csv_is_what_the_service_sends_and_nothing_else(run: Run, url: str) -> None:
    shown = (await run("--csv", *WEEK)).stdout_bytes.decode()
    async with httpx.AsyncClient(base_url=url) as client:
        query = {"from": WEEK[1], "to": WEEK[3], "format": "csv"}
        assert shown == (await client.get("/reports", params=query)).text
    lines = list(csv.DictReader(io.StringIO(shown)))
    assert [(line["ad_id"], line["spend"]) for line in lines] == [("Ad-1", "2.5"), ("Ad-2", "0")]


async def test_json(run: Run) -> None:
    report = json.loads((await run("--json", "--by", "day", *WEEK)).stdout)
    assert [row["shown"] for row in report["rows"]] == [4, 0, 0, 0, 0, 0, 0]


async def test_the_plot_rises_with_spend_and_marks_the_budget(run: Run) -> None:
    result = await run("--plot", "--ad", "Ad-1", "--to", "2030-01-07")
    hours = {line[:2]: line for line in result.stdout.splitlines() if line[2:5] == ":59"}
    assert len(hours) == 24
    assert [hours[h].count("█") for h in ("09", "10", "11", "12", "23")] == [0, 12, 12, 25, 25]
    assert all("│" in line for line in hours.values())
    assert hours["23"].endswith("4 USD")
    assert "daily budget, 8 USD" in result.stdout


async def test_a_plot_of_all_ads_fills_its_width(run: Run) -> None:
    result = await run("--plot", "--to", "2030-01-07")
    (last,) = (line for line in result.stdout.splitlines() if line.startswith("23:59"))
    assert last.count("█") == 50


async def test_an_overspent_budget_stays_inside_the_bar(
    run: Run, catalog: Catalog, make_ad: Callable[..., Ad]
) -> None:
    await catalog.put(make_ad("Ad-1", budget={"daily": 1}))
    result = await run("--plot", "--ad", "Ad-1", "--to", "2030-01-07")
    (last,) = (line for line in result.stdout.splitlines() if line.startswith("23:59"))
    assert last.index("│") < last.rindex("█")


@pytest.mark.parametrize(
    "words", [("--csv", "--json"), ("--ad", "Ad-1"), ("--by", "user"), ("--plot", "--csv")]
)
async def test_wrong_usage_is_2(run: Run, words: tuple[str, ...]) -> None:
    assert (await run(*words)).exit_code == 2


async def test_a_refusal_names_the_place(run: Run) -> None:
    result = await run("--from", "2030-01-13", "--to", "2030-01-07")
    assert result.exit_code == 1
    assert "query/to" in result.stderr


async def test_a_service_that_is_not_there_is_told(run: Run) -> None:
    result = await run("--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "Is the service running?" in result.stderr
