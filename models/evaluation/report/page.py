"""The report of a run's directory: one HTML file and one Markdown file beside its records."""

import json
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader

from models.evaluation.analysis import Analysis, analyse
from models.evaluation.manifest import read_manifest
from models.evaluation.record import read_records
from models.evaluation.report import plots
from models.evaluation.report.tables import Table, tables
from models.evaluation.run import OUTCOMES

HTML: Final = "report.html"
MARKDOWN: Final = "report.md"


class NothingToReport(Exception):
    """The directory holds no outcome of a run."""


def write_report(directory: Path) -> tuple[Path, Path]:
    """Write and return the HTML and the Markdown file of the run in `directory`.

    Raises NothingToReport, RecordsDamaged.
    """
    records, _ = read_records(directory / OUTCOMES)
    if not records:
        raise NothingToReport(
            f"{directory} holds no outcomes: `llm-auction evaluate run` writes them"
        )
    manifest = read_manifest(directory)
    config = manifest["config"]
    is_fit_known = manifest.get("is_fit_known", True)
    analysis = analyse(records, config["mechanisms"], config["beta"], is_fit_known=is_fit_known)
    html, markdown = directory / HTML, directory / MARKDOWN
    html.write_text(as_html(analysis, manifest, len(records)), encoding="utf-8")
    markdown.write_text(as_markdown(analysis), encoding="utf-8")
    return html, markdown


def as_markdown(analysis: Analysis) -> str:
    return "\n".join(table.as_markdown() for table in tables(analysis))


def as_html(analysis: Analysis, manifest: dict[str, Any], outcomes: int) -> str:
    environment = Environment(
        loader=PackageLoader("models.evaluation.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    by_title = {table.title: table for table in tables(analysis)}
    return environment.get_template("report.html.j2").render(
        sections=_sections(analysis, by_title),
        manifest=manifest,
        manifest_json=json.dumps(manifest, indent=2, ensure_ascii=False),
        outcomes=outcomes,
    )


def _sections(analysis: Analysis, by_title: dict[str, Table]) -> list[dict[str, Any]]:
    """Title, table and pictures of what the run has figures for."""
    pictures = {
        "Earnings": [("", plots.earnings)],
        "What the reader gets": [("", plots.reader)],
        "Cost": [("", plots.cost)],
        "Bids and order": [
            ("Exposure and clicks by bid, with 95 % bands", plots.responses),
            ("Exposure in the fine sweep, smoothed; dotted: a step", plots.fine_sweeps),
            ("Exposure by place in the candidate list", plots.places),
        ],
        "Incentives": [("What the best response gains over the truth", plots.incentives)],
    }
    return [
        {
            "table": by_title[title],
            "pictures": [
                (caption, picture)
                for caption, draw in drawn
                if (picture := draw(analysis)) is not None
            ],
        }
        for title, drawn in pictures.items()
        if title in by_title
    ]
