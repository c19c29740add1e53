"""`llm-auction receipt`: show receipts, check their signatures, make signing keys."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.auction.money import to_text
from service.cli_client import HERE, Key, Url, checked, open_client
from service.receipt import is_genuine
from service.signing import SigningKeysError, load_keys, new_line

app = typer.Typer(help="Show and check receipts.", no_args_is_help=True)

Json = dict[str, Any]
ResponseId = Annotated[str, typer.Argument(help="From an answer: `resp_…`.")]
Which = Annotated[str, typer.Argument(help="A receipt's file, `-` for stdin, or a response's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON: what `verify` takes.")]
KeysFile = Annotated[
    Path | None,
    typer.Option("--keys-file", help="Check here, with this file of signing keys, not over HTTP."),
]
Query = Annotated[str | None, typer.Option(help="Check that this was the query, too.")]


@app.command()
def show(
    response_id: ResponseId, as_json: AsJson = False, url: Url = HERE, api_key: Key = None
) -> None:
    """Show why an answer's ads stood in it, and what became of their charges.

    llm-auction receipt show resp_0f…

    llm-auction receipt show resp_0f… --json > receipt.json
    """
    document = _get(response_id, url, api_key)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(document)


@app.command()
def verify(
    which: Which,
    keys_file: KeysFile = None,
    query: Query = None,
    url: Url = HERE,
    api_key: Key = None,
) -> None:
    """Check that the service has signed exactly this receipt; ends with 1 where it has not.

    llm-auction receipt verify receipt.json

    llm-auction receipt verify receipt.json --keys-file state/signing_keys
    """
    if keys_file is not None and query is not None:
        raise typer.BadParameter("goes without --keys-file", param_hint="--query")
    document = _get(which, url, api_key) if which.startswith("resp_") else _read(which)
    body = {name: document[name] for name in ("receipt", "signature")}
    if keys_file is not None:
        checks = {"valid": _check_here(document, keys_file), "query_matches": None}
    else:
        with open_client(url, api_key) as client:
            answered = client.post("/receipts/verify", json={**body, "query": query})
            checks = checked(answered).json()
    out = Console(highlight=False)
    response_id = Text(str(document["receipt"].get("response_id")))
    out.print("[green]genuine[/]" if checks["valid"] else "[bold red]not genuine[/]", response_id)
    if checks["query_matches"] is not None:
        out.print("the query is", "the same" if checks["query_matches"] else "[bold red]another[/]")
    if not checks["valid"] or checks["query_matches"] is False:
        raise typer.Exit(1)


@app.command("new-key")
def new_key() -> None:
    """Print a fresh signing key as a line of the keys file.

    To rotate, put the line at the file's end and restart every process; then move it to the top
    and restart again. The old line can go once its tokens have expired and its receipts need no
    more checking.

    llm-auction receipt new-key >> state/signing_keys
    """
    typer.echo(new_line())


def _get(response_id: str, url: str, api_key: str | None) -> Json:
    with open_client(url, api_key) as client:
        document: Json = checked(client.get(f"/responses/{response_id}")).json()
    return document


def _read(name: str) -> Json:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        document: Json = json.loads(text)
        is_whole = all(isinstance(document[part], dict) for part in ("receipt", "signature"))
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise typer.BadParameter(f"{name} is no receipt that `receipt show --json` has written")
    return document


def _check_here(document: Json, keys_file: Path) -> bool:
    try:
        keys = load_keys(keys_file.parent, keys_file)
    except SigningKeysError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--keys-file") from wrong
    return is_genuine(document["receipt"], document["signature"], keys)


def _show(document: Json) -> None:
    receipt, out = document["receipt"], Console(highlight=False)
    model = receipt["model"]
    out.print(Text(f"{receipt['response_id']}, {receipt['time']}, asked by {receipt['caller']}"))
    out.print(
        Text(f"model {model['name']} {model['revision'][:12]}, contract {receipt['contract']}")
    )
    inserted = {insertion["ad_id"]: insertion for insertion in receipt["insertions"]}
    charges = {charge["ad_id"]: charge for charge in document["charges"]}
    table = Table("ad", "bid", "place in prompt", "in the answer", "charge")
    for candidate in receipt["candidates"]:
        ad_id = candidate["ad_id"]
        place = candidate.get("place")
        is_in = place is not None and ad_id in inserted
        table.add_row(
            Text(ad_id),
            to_text(candidate["bid_micros"]),
            str(place or candidate["excluded"]),
            str(inserted[ad_id]["position"]) if is_in else "–",
            _charge(inserted[ad_id]["charge"], charges[ad_id]) if is_in else "–",
        )
    out.print(table)
    for fault in receipt["faults"]:
        out.print(Text(f"fault: {fault['kind']} at {fault['start']} ({fault['ad_id'] or '–'})"))


def _charge(terms: Json, charge: Json) -> str:
    price = f"{to_text(terms['price_micros'])} {terms['currency']}"
    return f"{charge['state']}, {price} per {terms['event']}"
