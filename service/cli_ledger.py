"""`llm-auction ledger`: check the money, at any time, whether the service runs or not.

Reads the store itself and not over HTTP: a check of millions of charges must not take time from
those who ask for answers. The embedded store is reached by its socket in the state directory, and
started for the check where no service runs.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from service.auction.money import to_text
from service.settings import Settings, SettingsError, load_settings
from service.store.connection import Store, StoreUnavailable, open_store
from service.store.embedded import EmbeddedError
from service.store.receipts import Receipts
from service.store.verification import Invariant, ReceiptCheck, Verification, verify

app = typer.Typer(help="Check what was charged.", no_args_is_help=True)

_TIMEOUT_MS = 60_000
_MARGIN_S = 600
"""Receipts, tokens and charges of an answer are not made at the same moment."""

_TOLD = {
    Invariant.ADS_BALANCE: "charges add up to what was taken from each ad's budget",
    Invariant.ADVERTISERS_BALANCE: "and from each advertiser's",
    Invariant.CHARGED_ONCE: "no ad of an answer is charged twice",
    Invariant.WITHIN_BUDGET: "no budget was below zero after any charge",
    Invariant.WITHIN_BID: "no charge is above its bid",
    Invariant.RECEIPTED: "every charge has its receipt, while receipts are kept",
}

RedisUrl = Annotated[str | None, typer.Option(help="Redis URL; without one the embedded store.")]
StateDir = Annotated[Path | None, typer.Option(help="Where the embedded store keeps its data.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.callback()
def ledger() -> None:
    """Check what was charged."""


@app.command("verify")
def verify_ledger(
    redis_url: RedisUrl = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """Check every invariant of the ledger, from its first charge to its last.

    Ends with 0 where all hold, 1 where one is broken, 2 where the store cannot be read. Settings
    are the service's own, from the environment.

        llm-auction ledger verify --redis-url redis://localhost:6379/0
    """
    errors = Console(stderr=True, highlight=False)
    begun = time.monotonic()
    try:
        found = asyncio.run(_verify(_settings(redis_url, state_dir), errors))
    except (SettingsError, EmbeddedError, StoreUnavailable, ValueError) as failure:
        errors.print(Text(f"The ledger cannot be read: {failure}", "bold red"))
        raise typer.Exit(2) from failure
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        _show(found, time.monotonic() - begun)
    raise typer.Exit(0 if found.is_sound else 1)


def _settings(redis_url: str | None, state_dir: Path | None) -> Settings:
    overrides: dict[str, object] = {}
    if redis_url is not None:
        overrides["store"] = {"url": redis_url}
    if state_dir is not None:
        overrides["state_dir"] = state_dir
    return load_settings(overrides)


async def _verify(settings: Settings, errors: Console) -> Verification:
    namespace = settings.store.namespace
    kept_s = settings.receipts.retention_s - settings.auction.charge_ttl_s - _MARGIN_S
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} charges read"))
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        async with _open(settings) as store:
            receipts = Receipts(store, namespace, settings.receipts.retention_s)
            since_ms = int((time.time() - max(0, kept_s)) * 1000)
            check = ReceiptCheck(receipts.missing, since_ms)
            return await verify(
                store, namespace, check, lambda entries: progress.update(task, completed=entries)
            )


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[Store]:
    """The store that the service uses, at its socket where a service runs one of its own."""
    store = settings.store.model_copy(update={"timeout_ms": _TIMEOUT_MS})
    socket = settings.state_dir.resolve() / "valkey" / "valkey.sock"
    if store.url is None and await _listens(socket):
        store = store.model_copy(update={"url": f"unix://{socket}"})
    if store.url is None and not socket.parent.is_dir():
        raise EmbeddedError(f"there is no store in {settings.state_dir}; name one by --state-dir")
    async with open_store(store, settings.state_dir, lambda line: None) as opened:
        yield opened


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


def _as_json(found: Verification) -> dict[str, object]:
    return {
        "is_sound": found.is_sound,
        "entries": found.entries,
        "sum_micros": found.sum_micros,
        "invariants": {
            invariant.value: {
                "checked": finding.checked,
                "broken": finding.broken,
                "examples": finding.examples,
            }
            for invariant, finding in found.findings.items()
        },
    }


def _show(found: Verification, seconds: float) -> None:
    table = Table("invariant", "checked", "broken")
    for invariant, finding in found.findings.items():
        verdict = Text(f"{finding.broken:,}", "bold red" if finding.broken else "green")
        table.add_row(_TOLD[invariant], f"{finding.checked:,}", verdict)
    out = Console(highlight=False)
    out.print(table)
    for finding in found.findings.values():
        for example in finding.examples:
            out.print(Text(f"  {example}", "red"))
    conclusion = "all of them hold" if found.is_sound else "the ledger is NOT sound"
    out.print(
        f"{found.entries:,} charges of {to_text(found.sum_micros)} in all,"
        f" read in {seconds:.1f} s: {conclusion}."
    )
