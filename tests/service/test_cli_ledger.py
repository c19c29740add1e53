"""`ledger verify` as a user types it: beside a running store, alone, and on damage."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service import cli_ledger
from service.auction.ad import Ad
from service.settings import StoreSettings
from service.store.catalog import Catalog
from service.store.connection import Store, open_store
from service.store.ledger import ChargeRequest, Ledger
from service.store.receipts import Receipts

NAMESPACE = StoreSettings().namespace
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    async def invoke(*words: str) -> Result:
        given = ["verify", "--state-dir", str(tmp_path), *words]
        environment = {"COLUMNS": "200"}
        return await asyncio.to_thread(CliRunner().invoke, cli_ledger.app, given, env=environment)

    return invoke


@pytest.fixture
async def running(tmp_path: Path, make_ad: Callable[..., Ad]) -> AsyncGenerator[Store]:
    """The embedded store as a service runs it, with 3 charges."""
    async with open_store(StoreSettings(timeout_ms=10_000), tmp_path, lambda _: None) as store:
        await Catalog(store, NAMESPACE).put(make_ad("Ad-1"))
        now = datetime.now(UTC)
        for number in range(3):
            await Receipts(store, NAMESPACE, 10**6).save(f"resp_{number}", b"{}", None, now)
            request = ChargeRequest(
                f"resp_{number}", "Ad-1", "adv-1", "click", 500_000, 500_000, 1, now, 100
            )
            await Ledger(store, NAMESPACE).charge(request)
        yield store


async def test_beside_a_running_service(run: Run, running: Store) -> None:
    result = await run()
    assert result.exit_code == 0, result.output
    assert "3 charges of 1.5 in all" in result.stdout
    assert "all of them hold" in result.stdout
    assert result.stdout.count("│ 3 ") == 4  # of six invariants, four are checked at each charge


async def test_where_no_service_runs_the_store_is_started(
    run: Run, tmp_path: Path, make_ad: Callable[..., Ad]
) -> None:
    async with open_store(StoreSettings(timeout_ms=10_000), tmp_path, lambda _: None) as store:
        await Catalog(store, NAMESPACE).put(make_ad("Ad-1"))
        request = ChargeRequest("r", "Ad-1", "adv-1", "click", 5, 5, 1, datetime(2020, 1, 1), 100)
        await Ledger(store, NAMESPACE).charge(request)
    result = await run("--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["entries"], found["sum_micros"]) == (0, 1, 5)
    assert found["invariants"]["receipted"]["checked"] == 0  # its receipt's time is over


async def test_damage_ends_with_1_and_is_named(run: Run, running: Store) -> None:
    key = f"{{{NAMESPACE}}}:spent:total"
    await running.run(lambda redis: redis.hincrby(key, "Ad-1", 1))
    result = await run()
    assert result.exit_code == 1
    assert "NOT sound" in result.stdout
    assert "Ad-1, total: 1.5 in the ledger, 1.500001 taken" in result.stdout


async def test_a_charge_without_its_receipt_is_found(run: Run, running: Store) -> None:
    await running.run(lambda redis: redis.delete(f"{{{NAMESPACE}}}:receipt:resp_1"))
    result = await run("--json")
    receipted = json.loads(result.stdout)["invariants"]["receipted"]
    assert (result.exit_code, receipted["checked"], receipted["broken"]) == (1, 3, 1)
    assert "resp_1" in receipted["examples"][0]


async def test_an_erased_receipt_is_not_missed(run: Run, running: Store) -> None:
    assert await Receipts(running, NAMESPACE, 10**6).erase("resp_1")
    assert (await run()).exit_code == 0


@pytest.mark.parametrize(
    "words", [(), ("--redis-url", "redis://127.0.0.1:1/0"), ("--redis-url", "http://x")]
)
async def test_a_store_that_cannot_be_read_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    result = await run(*words)
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
