"""`receipt` as a user types it, against the routes on a loopback port."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import uvicorn
from click.testing import Result
from fastapi import FastAPI
from recorded import KEY, Accounts, accounts
from typer.testing import CliRunner

from service import cli_receipt
from service.api import clicks, problems, receipts
from service.auction.ad import Ad
from service.signing import load_keys
from service.store.connection import Store

Run = Callable[..., Awaitable[Result]]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def parts(store: Store, namespace: str) -> Accounts:
    return accounts(store, namespace)


@pytest.fixture
async def response_id(parts: Accounts, make_ad: Callable[..., Ad]) -> str:
    await parts.catalog.put(ad := make_ad("Ad-1"))
    return (await parts.answer(ad))[0]


@pytest.fixture
async def url(parts: Accounts) -> AsyncGenerator[str]:
    app = FastAPI()
    app.include_router(receipts.router())
    app.include_router(clicks.router())
    problems.install(app)
    app.state.services = parts
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
    environment = {"LLM_AUCTION_URL": url, "COLUMNS": "200"}

    async def invoke(*words: str, stdin: str | None = None) -> Result:
        return await asyncio.to_thread(
            CliRunner().invoke, cli_receipt.app, list(words), env=environment, input=stdin
        )

    return invoke


@pytest.fixture
async def saved(run: Run, response_id: str, tmp_path: Path) -> Path:
    path = tmp_path / "receipt.json"
    write(path, (await run("show", response_id, "--json")).stdout)
    return path


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "signing_keys"
    path.write_text(f"{KEY.key_id} {KEY.secret.hex()}\n")
    return path


async def test_show_says_why_each_ad_was_in_or_out(run: Run, response_id: str) -> None:
    result = await run("show", response_id)
    assert result.exit_code == 0, result.output
    rows = {
        cells[0]: cells[1:]
        for line in result.stdout.splitlines()
        if (cells := [cell.strip() for cell in line.split("│")[1:-1]])
    }
    assert rows["Ad-1"] == ["0.25", "1", "1", "open, 0.25 USD per click"]
    assert rows["Ad-0"] == ["0.000001", "unknown", "–", "–"]
    assert "some/model" in result.stdout


async def test_a_file_and_an_id_are_checked_over_http(
    run: Run, saved: Path, response_id: str
) -> None:
    for words, stdin in (
        ((str(saved),), None),
        ((response_id,), None),
        (("-",), text(saved)),
    ):
        result = await run("verify", *words, stdin=stdin)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"genuine {response_id}\n"


async def test_a_changed_receipt_ends_with_1(run: Run, saved: Path, keys_file: Path) -> None:
    document = json.loads(text(saved))
    document["receipt"]["caller"] = "someone else"
    write(saved, json.dumps(document))
    for words in ((), ("--keys-file", str(keys_file))):
        result = await run("verify", str(saved), *words)
        assert result.exit_code == 1
        assert "not genuine" in result.stdout


async def test_a_file_is_checked_here_with_the_keys(
    run: Run, saved: Path, keys_file: Path, response_id: str
) -> None:
    environment = ("--url", "http://127.0.0.1:1", "--keys-file", str(keys_file))
    result = await run("verify", str(saved), *environment)
    assert (result.exit_code, result.stdout) == (0, f"genuine {response_id}\n")


async def test_the_query_can_be_compared(run: Run, saved: Path) -> None:
    assert (await run("verify", str(saved), "--query", "Which boots?")).exit_code == 0
    other = await run("verify", str(saved), "--query", "Which shoes?")
    assert other.exit_code == 1
    assert "another" in other.stdout


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"receipt": 1, "signature": {}}'])
async def test_what_is_no_receipt_is_wrong_usage(run: Run, saved: Path, content: str) -> None:
    write(saved, content)
    assert (await run("verify", str(saved))).exit_code == 2


async def test_a_file_that_is_not_there_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert (await run("verify", str(tmp_path / "nothing"))).exit_code == 2


async def test_an_unknown_id_ends_with_1(run: Run) -> None:
    result = await run("show", "resp_" + "0" * 32)
    assert result.exit_code == 1
    assert "no receipt" in result.stderr


async def test_a_new_key_can_be_put_into_the_keys_file(run: Run, keys_file: Path) -> None:
    line = (await run("new-key")).stdout
    write(keys_file, text(keys_file) + line)
    keys = load_keys(keys_file.parent, keys_file)
    assert (keys.current, len(keys.all)) == (KEY, 2)
    assert (await run("new-key")).stdout != line
