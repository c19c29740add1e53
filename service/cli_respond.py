"""`llm-auction respond`: ask the running service from the terminal and watch the ads appear."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli_client import HERE, Key, Url, checked, fail, open_client

console = Console(highlight=False)


def ask(
    query: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.")],
    ad: Annotated[
        list[str], typer.Option("--ad", help="A candidate as AD_ID=BID; may be repeated.")
    ] = [],  # noqa: B006  Typer copies it
    candidates: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="JSON file with a list of {ad_id, bid}."),
    ] = None,
    max_ads: Annotated[int | None, typer.Option(help="The most ads in the answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same answer again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON.")] = False,
    url: Url = HERE,
    api_key: Key = None,
) -> None:
    """Ask a question and stream the answer, with ads highlighted, charges and latency below.

    llm-auction respond "What should I pack for a hike?" --ad Ad-1001=1.25 --ad Ad-1020=2
    """
    wished = {"max_ads": max_ads, "max_tokens": max_tokens, "seed": seed}
    body = {
        "query": sys.stdin.read() if query == "-" else query,
        "candidates": _candidates(ad, candidates),
        "stream": True,
        **{name: value for name, value in wished.items() if value is not None},
    }
    response = None
    for event, data in _events(url, api_key, body):
        if event == "done":
            response = data
        elif event == "error":
            fail(data)
        elif not as_json:
            _show(event, data)
    if response is None:
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(response, ensure_ascii=False, indent=2))
    else:
        _account(response)


def _candidates(ads: list[str], file: Path | None) -> list[dict[str, Any]]:
    try:
        listed = list(json.loads(file.read_text(encoding="utf-8"))) if file else []
    except (ValueError, TypeError) as wrong:
        raise typer.BadParameter(f"{file} is no list in JSON", param_hint="--candidates") from wrong
    for text in ads:
        ad_id, _, bid = text.rpartition("=")
        try:
            listed.append({"ad_id": ad_id, "bid": float(bid)})
        except ValueError as wrong:
            raise typer.BadParameter(f"{text} is not AD_ID=BID", param_hint="--ad") from wrong
    return listed


def _events(
    url: str, api_key: str | None, body: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    with (
        open_client(url, api_key, timeout_s=600) as client,
        client.stream("POST", "/respond", json=body) as response,
    ):
        if not response.is_success:
            response.read()
            checked(response)
        event = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield event, json.loads(line.removeprefix("data: "))


def _show(event: str, data: dict[str, Any]) -> None:
    if event == "ad":
        console.print(
            Text(data["title"], "bold black on yellow"), Text(" Sponsored", "dim"), end=""
        )
    else:
        console.print(Text(data["text"]), end="", soft_wrap=True)


def _account(response: dict[str, Any]) -> None:
    console.print("\n")
    if response["ads"]:
        table = Table("ad", "title", "charged on", "price", title="Charges", title_justify="left")
        for ad in response["ads"]:
            charge = ad["charge"]
            price = f"{charge['price']} {charge['currency']}"
            table.add_row(ad["ad_id"], Text(ad["title"]), charge["event"], price)
        console.print(table)
    for excluded in response["excluded"]:
        console.print(f"[dim]excluded {excluded['ad_id']}: {excluded['reason']}[/]")
    for fault in response["faults"]:
        console.print(f"[red]fault: {fault['kind']} {fault['ad_id'] or ''}[/]")
    if response["ads_unavailable"]:
        console.print("[red]the ad store is away: an answer without ads[/]")
    latency = response["latency_ms"]
    table = Table(*latency, title="Latency in ms", title_justify="left")
    table.add_row(*("–" if ms is None else f"{ms:,.1f}" for ms in latency.values()))
    console.print(table)
    usage = response["usage"]
    console.print(
        f"[dim]{usage['prompt_tokens']} prompt tokens ({usage['cached_tokens']} cached),"
        f" {usage['completion_tokens']} written, {response['finish_reason']}[/]"
    )
