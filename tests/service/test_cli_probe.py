"""`probe` as a user types it, against a service that shows the ad to a known rule."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from click.testing import Result
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service import cli_probe
from service.cli_probe import wilson

Run = Callable[..., Awaitable[Result]]


class ScriptedService:
    """Shows Ad-1 at every bid of 10 or more; `busy` requests are refused first."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.busy = 0
        self.refusal: JSONResponse | None = None

    async def respond(self, request: Request) -> Any:
        body = await request.json()
        if self.busy:
            self.busy -= 1
            return JSONResponse({"title": "Busy"}, 503, {"Retry-After": "0"})
        if self.refusal:
            return self.refusal
        self.bodies.append(body)
        bid = next(c["bid"] for c in body["candidates"] if c["ad_id"] == "Ad-1")
        is_shown = bid >= 10
        is_excluded = bid < 1
        return {
            "ads": [{"ad_id": "Ad-1"}, {"ad_id": "Ad-2"}] if is_shown else [{"ad_id": "Ad-2"}],
            "excluded": [{"ad_id": "Ad-1", "reason": "below_floor"}] if is_excluded else [],
        }


@pytest.fixture
async def scripted() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
async def url(scripted: ScriptedService) -> AsyncGenerator[str]:
    app = FastAPI()
    app.post("/respond")(scripted.respond)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
def run(url: str, tmp_path: Path) -> Run:
    app = typer.Typer()
    app.command()(cli_probe.probe)
    environment = {"LLM_AUCTION_URL": url, "COLUMNS": "200"}
    (tmp_path / "queries").write_text('Which boots?\n\n{"query": "Which socks?"}\n')
    (tmp_path / "others").write_text('[{"ad_id": "Ad-2", "bid": "3"}, {"ad_id": "Ad-1", "bid": 9}]')

    async def invoke(*words: str) -> Result:
        given = ["--queries", str(tmp_path / "queries"), "--candidates", str(tmp_path / "others")]
        words = ("--ad", "Ad-1", *given, *words)
        return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environment)

    return invoke


def cells(output: str, bid: str) -> list[str]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return next(row for row in rows if row and row[0] == bid)


async def test_exposure_is_shown_by_bid(run: Run) -> None:
    result = await run("--bids", "10,0.5,2", "--repeats", "5")
    assert result.exit_code == 0, result.output
    high = cells(result.stdout, "10")
    assert high[1:5] == ["10", "10", "100.0%", "72.2% to 100.0%"]
    assert high[5] == "█" * 40
    middle = cells(result.stdout, "2")
    assert (middle[2:5], middle[6]) == (["0", "0.0%", "0.0% to 27.8%"], "")
    assert cells(result.stdout, "0.5")[6] == "below_floor 10"


async def test_only_the_bid_differs(run: Run, scripted: ScriptedService) -> None:
    result = await run("--bids", "1,20", "--repeats", "2", "--max-ads", "1", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert all(body["probe"] is True and body["max_ads"] == 1 for body in scripted.bodies)

    def asked_at(bid: float) -> set[str]:
        bodies = [b for b in scripted.bodies if {"ad_id": "Ad-1", "bid": bid} in b["candidates"]]
        return {
            json.dumps({**b, "candidates": [c for c in b["candidates"] if c["ad_id"] != "Ad-1"]})
            for b in bodies
        }

    assert len(asked_at(1)) == 4
    assert asked_at(1) == asked_at(20)
    assert {body["seed"] for body in scripted.bodies} == {7, 8, 9, 10}
    assert all({"ad_id": "Ad-2", "bid": 3.0} in body["candidates"] for body in scripted.bodies)
    assert all(len(body["candidates"]) == 2 for body in scripted.bodies)


async def test_json(run: Run) -> None:
    told = json.loads((await run("--bids", "1,10", "--json")).stdout)
    assert told["ad_id"] == "Ad-1"
    assert [row["exposure"] for row in told["exposure"]] == [0, 1]
    assert [row["bid"] for row in told["exposure"]] == ["1", "10"]


async def test_a_full_service_is_asked_again(run: Run, scripted: ScriptedService) -> None:
    scripted.busy = 6
    result = await run("--bids", "1,10", "--json")
    assert sum(row["answers"] for row in json.loads(result.stdout)["exposure"]) == 4


async def test_a_refusal_ends_the_command_with_its_reason(
    run: Run, scripted: ScriptedService
) -> None:
    scripted.refusal = JSONResponse({"title": "Forbidden", "detail": "needs admin"}, 403)
    result = await run("--bids", "1")
    assert result.exit_code == 1
    assert "needs admin" in result.stderr


async def test_a_service_that_is_not_there_is_told(run: Run) -> None:
    for url in ("http://127.0.0.1:1", "http://[bad"):
        result = await run("--bids", "1", "--url", url)
        assert result.exit_code == 1
        assert "Is the service running?" in result.stderr


@pytest.mark.parametrize("bids", ["", "0", "-1", "one", "1,,2", "nan", "inf"])
async def test_wrong_bids_are_refused(run: Run, bids: str) -> None:
    assert (await run("--bids", bids)).exit_code == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("queries", "\n"),
        ("queries", '{"question": "?"}'),
        ("others", "{}x"),
        ("others", '[{"bid": 1}]'),
    ],
)
async def test_wrong_files_are_refused(run: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert (await run("--bids", "1")).exit_code == 2


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, table I (method 3, score)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_is_the_published_interval(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_range(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
