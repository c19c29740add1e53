"""`llm-auction report`: what was shown, clicked and paid, as a table, CSV, JSON or a plot."""

import json
from itertools import accumulate
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.api.report_schemas import ReportBy
from service.auction.money import to_text
from service.cli_client import HERE, Key, Url, checked, open_client

_BAR = 50
_IDS = {ReportBy.AD: "ad_id", ReportBy.ADVERTISER: "advertiser_id", ReportBy.DAY: "day"}

By = Annotated[ReportBy, typer.Option(help="What a line is about.")]
FirstDay = Annotated[str | None, typer.Option("--from", help="YYYY-MM-DD; a week by default.")]
LastDay = Annotated[str | None, typer.Option("--to", help="YYYY-MM-DD; today by default.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="As CSV.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Plot = Annotated[bool, typer.Option("--plot", help="Spend against budget over the day of --to.")]
AdId = Annotated[str | None, typer.Option("--ad", help="Only this ad, with --plot.")]
Json = dict[str, Any]


def report(
    by: By = ReportBy.AD,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    plot: Plot = False,
    ad: AdId = None,
    url: Url = HERE,
    api_key: Key = None,
) -> None:
    """Show what was shown, clicked and paid, and what is left of budgets.

    llm-auction report --by advertiser --from 2030-01-01

    llm-auction report --csv > ads.csv

    llm-auction report --plot --ad Ad-1001
    """
    if as_csv + as_json + plot > 1:
        raise typer.BadParameter("choose one of --csv, --json and --plot")
    if ad is not None and not plot:
        raise typer.BadParameter("goes with --plot", param_hint="--ad")
    if plot:
        _plot(_get(url, api_key, "/reports/hours", {"day": last_day, "ad_id": ad}).json(), ad)
        return
    query = {"by": by, "from": first_day, "to": last_day, "format": "csv" if as_csv else "json"}
    response = _get(url, api_key, "/reports", query)
    if as_csv:
        typer.echo(response.text, nl=False)
    elif as_json:
        typer.echo(json.dumps(response.json(), ensure_ascii=False, indent=2))
    else:
        _show(response.json())


def _get(url: str, api_key: str | None, path: str, query: dict[str, str | None]) -> httpx.Response:
    given = {name: value for name, value in query.items() if value is not None}
    with open_client(url, api_key) as client:
        return checked(client.get(path, params=given))


def _show(report: Json) -> None:
    days = f"{report['first_day']} to {report['last_day']} ({report['timezone']})"
    table = Table(
        report["by"], "eligible", "shown", "clicks", "CTR", "spend", "average price", "left",
        "left today", "excluded",
        title=f"{days}, amounts in {report['currency']}", title_justify="left",
    )  # fmt: skip
    for row in report["rows"]:
        table.add_row(Text(row[_IDS[report["by"]]] or "–"), *_cells(row))
    table.add_section()
    table.add_row("total", *_cells(report["total"]))
    out = Console(highlight=False)
    out.print(table)
    if report["rows_left_off"]:
        out.print(f"{report['rows_left_off']} more with less spend are left off.")
    out.print(f"{report['answers']} answers, {report['answers_held_out']} of them held out of ads.")


def _cells(row: Json) -> list[str]:
    charged = row["clicks"] + row["impressions_charged"]
    ctr = "–" if row["ctr"] is None else f"{float(row['ctr']):.2%}"
    amounts = ("spend", "average_price", "remaining_total", "remaining_daily")
    spend, price, left, left_today = (
        "–" if row.get(name) is None else row[name]["text"] for name in amounts
    )
    excluded = ", ".join(f"{reason} {count}" for reason, count in row["excluded"].items())
    counts = (f"{row['eligible']:,}", f"{row['shown']:,}", f"{charged:,}")
    return [*counts, ctr, spend, price, left, left_today, excluded]


def _plot(hours: Json, ad: str | None) -> None:
    """A bar an hour: all that the day has cost up to its end, with the budget as the whole."""
    spent = list(accumulate(hour["micros"] for hour in hours["hours"]))
    budget = hours["daily_budget"]
    whole = max(spent[-1], budget["micros"] if budget else 0, 1)
    out = Console(highlight=False)
    out.print(f"Spend of {ad or 'all ads'} on {hours['day']} ({hours['timezone']})")
    limit = round(_BAR * budget["micros"] / whole) if budget else None
    for hour, micros in enumerate(spent):
        bar = "█" * round(_BAR * micros / whole)
        line = bar.ljust(_BAR) if limit is None else _with_mark(bar, limit)
        out.print(Text(f"{hour:02}:59 {line} {to_text(micros)} {hours['currency']}"))
    if budget:
        out.print(f"│ the daily budget, {budget['text']} {hours['currency']}")


def _with_mark(bar: str, position: int) -> str:
    line = bar.ljust(_BAR + 1)
    return f"{line[:position]}│{line[position + 1 :]}"
