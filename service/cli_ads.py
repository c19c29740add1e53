"""`llm-auction ads`: look after the ad catalogue of a running service from the terminal.

Speaks HTTP, since the store may belong to the service. Rows are checked here first, by the very
rules of the service, so that nothing is sent unless all of it is good.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from service.auction.ad_rows import Row, RowFormat, read_rows

app = typer.Typer(help="Import, list, show and remove ads.", no_args_is_help=True)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_CHUNK = 1_000
_FORMAT_BY_SUFFIX = {
    ".csv": RowFormat.CSV,
    ".jsonl": RowFormat.NDJSON,
    ".ndjson": RowFormat.NDJSON,
}

Url = Annotated[str, typer.Option(envvar="LLM_AUCTION_URL", help="Where the service listens.")]
Key = Annotated[str | None, typer.Option(envvar="LLM_AUCTION_API_KEY", help="API key.")]
File = Annotated[
    typer.FileBinaryRead, typer.Argument(metavar="FILE", help="NDJSON or CSV; `-`: standard input.")
]
Format = Annotated[
    RowFormat | None, typer.Option("--format", help="Where the file's name does not tell.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Import the good rows though others are bad.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
AdId = Annotated[str, typer.Argument(help="For example Ad-1001.")]
AdIds = Annotated[list[str], typer.Argument(help="One or more, for example Ad-1001 Ad-1002.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_HERE = "http://127.0.0.1:8000"


@app.command("import")
def import_ads(
    file: File,
    row_format: Format = None,
    skip_bad: SkipBad = False,
    url: Url = _HERE,
    api_key: Key = None,
) -> None:
    """Import ads from a file; ads that are there already are replaced.

    All rows are checked first. Where one is bad, every bad one is shown
    and nothing is imported, unless --skip-bad is given.

    NDJSON has one ad a line:

        {"ad_id": "Ad-1", "title": "Trailhead Boots", "category": "boots",
        "landing_url": "https://boots.example/", "advertiser_id": "adv-1"}

    CSV has a header with the columns ad_id, title, category, landing_url,
    advertiser_id, and if wanted description, status, image_url, languages,
    blocked_topics (lists separated by |), reserve, budget_total,
    budget_daily.

        llm-auction ads import ads.jsonl

        llm-auction ads import --skip-bad export.csv

        zcat ads.jsonl.gz | llm-auction ads import --format ndjson -
    """
    rows = list(read_rows(*_source(file, row_format)))
    bad = [row for row in rows if row.ad is None]
    good = [row for row in rows if row.ad is not None]
    if bad:
        _show_bad(bad)
        if not (skip_bad and good):
            err.print(f"[red]Nothing was imported: {len(bad)} of {len(rows)} rows are bad.[/]")
            raise typer.Exit(1)
    with _client(url, api_key) as client:
        created, replaced = _upload(client, good)
    skipped = f", {len(bad)} bad ones skipped" if bad else ""
    out.print(f"{created} ads created, {replaced} replaced{skipped}.")


@app.command("list")
def list_ads(as_json: AsJson = False, url: Url = _HERE, api_key: Key = None) -> None:
    """List all ads, in the order of their ids.

    llm-auction ads list

    llm-auction ads list --json | grep '"paused"'
    """
    with _client(url, api_key) as client:
        ads = _all_ads(client)
        if as_json:
            for ad in ads:
                typer.echo(json.dumps(ad, ensure_ascii=False))
            return
        table = Table("ad", "title", "category", "status", "reserve", "total", "daily")
        for ad in ads:
            amounts = (ad["reserve"], ad["budget"]["total"], ad["budget"]["daily"])
            table.add_row(
                *(Text(ad[name]) for name in ("ad_id", "title", "category", "status")),
                *("–" if amount is None else amount for amount in amounts),
            )
    out.print(table)
    out.print(f"{table.row_count} ads")


@app.command("show")
def show_ad(ad_id: AdId, url: Url = _HERE, api_key: Key = None) -> None:
    """Show one ad as JSON.

    llm-auction ads show Ad-1001
    """
    with _client(url, api_key) as client:
        ad = _checked(client.get("/ads/" + quote(ad_id, safe=""))).json()
    typer.echo(json.dumps(ad, ensure_ascii=False, indent=2))


@app.command("rm")
def remove_ads(ad_ids: AdIds, yes: Yes = False, url: Url = _HERE, api_key: Key = None) -> None:
    """Remove ads. What they have spent stays on record.

    llm-auction ads rm Ad-1001 Ad-1002 --yes
    """
    if not yes:
        typer.confirm(f"Remove {', '.join(ad_ids)}?", abort=True)
    unknown = []
    with _client(url, api_key) as client:
        for ad_id in ad_ids:
            response = client.delete("/ads/" + quote(ad_id, safe=""))
            if response.status_code == 404:
                unknown.append(ad_id)
            else:
                _checked(response)
    out.print(f"{len(ad_ids) - len(unknown)} ads removed.")
    if unknown:
        err.print(f"[red]There was no {', '.join(unknown)}.[/]")
        raise typer.Exit(1)


def _source(file: typer.FileBinaryRead, row_format: RowFormat | None) -> tuple[bytes, RowFormat]:
    """The file's bytes and how its rows are written."""
    found = row_format or _FORMAT_BY_SUFFIX.get(Path(file.name).suffix.lower())
    if found is None:
        raise typer.BadParameter("say ndjson or csv: the name does not tell", param_hint="--format")
    return file.read(), found


def _show_bad(bad: Sequence[Row]) -> None:
    table = Table("line", "field", "what is wrong", title="Bad rows", title_justify="left")
    for row in bad:
        for error in row.errors:
            table.add_row(str(row.line), Text(error.field), Text(error.msg))
    err.print(table)


def _upload(client: httpx.Client, rows: Sequence[Row]) -> tuple[int, int]:
    """Send the rows, a chunk at a time; how many were created and replaced."""
    created = replaced = 0
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    last_line = 0
    try:
        for chunk in track(chunks, "Importing", console=err, transient=True):
            ads = (row.ad.model_dump_json(by_alias=True) for row in chunk if row.ad is not None)
            response = client.post(
                "/ads/import",
                content="\n".join(ads).encode(),
                headers={"Content-Type": "application/x-ndjson"},
            )
            result = _checked(response).json()
            created += result["created"]
            replaced += result["replaced"]
            last_line = chunk[-1].line
    except (httpx.HTTPError, typer.Exit):
        saved = f"The rows up to line {last_line} are in" if last_line else "No whole part is in"
        err.print(f"{saved}. Importing the file again is safe.")
        raise
    return created, replaced


def _all_ads(client: httpx.Client) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        after = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = _checked(client.get("/ads", params=after)).json()
        yield from page["ads"]
        cursor = page["cursor"]
        if cursor is None:
            return


@contextmanager
def _client(url: str, api_key: str | None) -> Iterator[httpx.Client]:
    """A client of the service; where it cannot be reached, the command ends with 1."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        err.print(f"[bold red]No answer from {url}[/]: {error}. Is the service running?")
        raise typer.Exit(1) from error


def _checked(response: httpx.Response) -> httpx.Response:
    """`response` where it is a success; else the problem is shown and the command ends with 1."""
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = {"title": f"HTTP {response.status_code}"}
    err.print(Text(f"{problem.get('title')}. {problem.get('detail', '')}", "bold red"))
    for error in problem.get("errors", ()):
        err.print(Text(f"  {error['loc']}: {error['msg']}"))
    raise typer.Exit(1)
