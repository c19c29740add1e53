"""The commands as a user types them, against the routes on a loopback port."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from click.testing import Result
from fastapi import FastAPI
from typer.testing import CliRunner

from service import cli_ads
from service.api import ads, problems
from service.auction.ad import Ad
from service.store.catalog import Catalog, ImportInterrupted

MakeAd = Callable[..., Ad]
Run = Callable[..., Awaitable[Result]]
HEADER = "ad_id,title,category,landing_url,advertiser_id\n"


@dataclass
class OnlyACatalog:
    catalog: Catalog


@pytest.fixture
async def url(catalog: Catalog) -> AsyncGenerator[str]:
    app = FastAPI()
    app.include_router(ads.router())
    problems.install(app)
    app.state.services = OnlyACatalog(catalog)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


@pytest.fixture
def run(url: str) -> Run:
    environment = {"LLM_AUCTION_URL": url, "COLUMNS": "200"}

    async def invoke(*words: str, typed: str | bytes | None = None) -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke, cli_ads.app, list(words), input=typed, env=environment
        )

    return invoke


def row(ad_id: str, title: str = "Boots") -> str:
    return f"{ad_id},{title},boots,https://boots.example/,adv-1\n"


class TestImport:
    async def test_a_good_file_is_imported(
        self, run: Run, catalog: Catalog, tmp_path: Path, make_ad: MakeAd
    ) -> None:
        await catalog.put(make_ad("Ad-2"))
        file = tmp_path / "ads.csv"
        file.write_text(HEADER + row("Ad-1") + row("Ad-2", "靴“Boots”") + row("Ad-3"))
        result = await run("import", str(file))
        assert result.exit_code == 0, result.output
        assert "2 ads created, 1 replaced." in result.stdout
        found = await catalog.get("Ad-2")
        assert found is not None
        assert found.title == "靴“Boots”"

    async def test_bad_rows_are_all_shown_and_nothing_is_sent(
        self, run: Run, catalog: Catalog, tmp_path: Path
    ) -> None:
        file = tmp_path / "ads.csv"
        file.write_text(HEADER + row("Ad-1") + row("Ad-2", "a@[b") + row("Ad 3") + row("Ad-1"))
        result = await run("import", str(file))
        assert result.exit_code == 1
        shown = [line.split("│")[1:3] for line in result.stderr.splitlines() if "│" in line]
        assert [[cell.strip() for cell in cells] for cells in shown] == [
            ["3", "title"],
            ["4", "ad_id"],
            ["5", "ad_id"],
        ]
        assert "Nothing was imported: 3 of 4 rows are bad." in result.stderr
        assert await catalog.count() == 0

    async def test_bad_rows_can_be_skipped(
        self, run: Run, catalog: Catalog, tmp_path: Path
    ) -> None:
        file = tmp_path / "ads.csv"
        file.write_text(HEADER + row("Ad-1") + row("Ad 2"))
        result = await run("import", "--skip-bad", str(file))
        assert result.exit_code == 0, result.output
        assert "1 ads created, 0 replaced, 1 bad ones skipped." in result.stdout
        assert await catalog.count() == 1

    async def test_large_files_go_in_parts(
        self, run: Run, catalog: Catalog, make_ad: MakeAd, tmp_path: Path
    ) -> None:
        file = tmp_path / "ads.jsonl"
        all_ads = (make_ad(f"Ad-{number}") for number in range(2_500))
        file.write_text("\n".join(ad.model_dump_json(by_alias=True) for ad in all_ads))
        result = await run("import", str(file))
        assert "2500 ads created" in result.stdout
        assert await catalog.count() == 2_500

    async def test_what_is_in_is_told_where_the_upload_breaks_off(
        self,
        run: Run,
        catalog: Catalog,
        make_ad: MakeAd,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole, calls = catalog.import_many, []

        async def second_fails(self: Catalog, rows: list[Ad]) -> object:
            calls.append(rows)
            if len(calls) == 2:
                raise ImportInterrupted(0)
            return await whole(rows)

        monkeypatch.setattr(Catalog, "import_many", second_fails)
        file = tmp_path / "ads.jsonl"
        all_ads = (make_ad(f"Ad-{number}") for number in range(1_500))
        file.write_text("\n".join(ad.model_dump_json(by_alias=True) for ad in all_ads))
        result = await run("import", str(file))
        assert result.exit_code == 1
        assert "The ad store does not answer" in result.stderr
        assert "The rows up to line 1000 are in." in result.stderr

    async def test_standard_input(self, run: Run, catalog: Catalog) -> None:
        result = await run("import", "--format", "csv", "-", typed=HEADER + row("Ad-1"))
        assert result.exit_code == 0, result.output
        assert await catalog.count() == 1

    async def test_wrong_usage_is_2(self, run: Run, tmp_path: Path) -> None:
        unclear = tmp_path / "ads.txt"
        unclear.write_text("")
        assert (await run("import", str(unclear))).exit_code == 2
        assert (await run("import", str(tmp_path / "missing.csv"))).exit_code == 2
        assert (await run("import")).exit_code == 2


async def test_list_shows_every_ad(run: Run, catalog: Catalog, make_ad: MakeAd) -> None:
    await catalog.put(make_ad("Ad-1", title="[bold]Boots[/bold]", budget={"daily": "12.50"}))
    await catalog.put(make_ad("Ad-2", status="paused"))
    result = await run("list")
    assert result.exit_code == 0, result.output
    assert "[bold]Boots[/bold]" in result.stdout
    assert "12.5" in result.stdout
    assert "2 ads" in result.stdout


async def test_list_as_json_is_an_ad_a_line_and_can_be_imported(
    run: Run, catalog: Catalog, make_ad: MakeAd
) -> None:
    await catalog.import_many(make_ad(f"Ad-{number}") for number in range(1_100))
    listed = (await run("list", "--json")).stdout
    assert [json.loads(line)["ad_id"] for line in listed.splitlines()] == sorted(
        f"Ad-{number}" for number in range(1_100)
    )
    again = await run("import", "--format", "ndjson", "-", typed=listed)
    assert "0 ads created, 1100 replaced." in again.stdout


async def test_show(run: Run, catalog: Catalog, make_ad: MakeAd) -> None:
    ad = make_ad(reserve="0.5")
    await catalog.put(ad)
    result = await run("show", "Ad-1")
    assert Ad.model_validate_json(result.stdout) == ad
    unknown = await run("show", "Ad-404")
    assert unknown.exit_code == 1
    assert "no such" in unknown.stderr


class TestRemove:
    @pytest.fixture(autouse=True)
    async def _two_ads(self, catalog: Catalog, make_ad: MakeAd) -> None:
        await catalog.import_many([make_ad("Ad-1"), make_ad("Ad-2")])

    async def test_several_at_once(self, run: Run, catalog: Catalog) -> None:
        result = await run("rm", "Ad-1", "Ad-2", "--yes")
        assert (result.exit_code, result.stdout.strip()) == (0, "2 ads removed.")
        assert await catalog.count() == 0

    async def test_asks_first(self, run: Run, catalog: Catalog) -> None:
        assert (await run("rm", "Ad-1", typed="n\n")).exit_code == 1
        assert await catalog.count() == 2
        assert (await run("rm", "Ad-1", typed="y\n")).exit_code == 0
        assert await catalog.count() == 1

    async def test_unknown_ones_are_named_and_the_others_removed(
        self, run: Run, catalog: Catalog
    ) -> None:
        result = await run("rm", "--yes", "Ad-404", "Ad-1")
        assert result.exit_code == 1
        assert "There was no Ad-404." in result.stderr
        assert await catalog.count() == 1


async def test_a_service_that_is_not_there_is_told(run: Run) -> None:
    result = await run("list", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "Is the service running?" in result.stderr


async def test_help_teaches_by_example(run: Run) -> None:
    shown = (await run("import", "--help")).stdout
    assert "llm-auction ads import ads.jsonl" in shown
    assert "budget_daily" in shown
