"""Reads many ads from one body: NDJSON, or CSV with a header line.

CSV columns are `ad_id, title, description, category, landing_url, advertiser_id, status, image_url,
languages, blocked_topics, reserve, budget_total, budget_daily`, in any order; an empty cell takes
the default, and lists are separated by `|`. Both are UTF-8, a byte order mark is skipped.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from service.auction.ad import Ad

CSV_COLUMNS = (
    "ad_id",
    "title",
    "description",
    "category",
    "landing_url",
    "advertiser_id",
    "status",
    "image_url",
    "languages",
    "blocked_topics",
    "reserve",
    "budget_total",
    "budget_daily",
)
_REQUIRED = ("ad_id", "title", "category", "landing_url", "advertiser_id")
_LISTS = frozenset({"languages", "blocked_topics"})
_NOT_UTF8 = "must be UTF-8"


class RowFormat(StrEnum):
    """How rows are written."""

    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class RowError:
    """What is wrong in a row. `field` is empty where the row as a whole is wrong."""

    field: str
    msg: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an ad, or else errors. `line` is where it begins, from 1."""

    line: int
    ad: Ad | None
    errors: tuple[RowError, ...] = ()


def read_rows(body: bytes, row_format: RowFormat) -> Iterator[Row]:
    """Every row of `body`, in order; blank lines are skipped.

    A second row with an id that an earlier good row had is an error.
    """
    # bytes that are not UTF-8 become lone surrogates, so that only their own rows fail
    text = body.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
    rows = _read_csv(text) if row_format is RowFormat.CSV else _read_ndjson(text)
    first_lines: dict[str, int] = {}
    for row in rows:
        if row.ad is None:
            yield row
            continue
        first = first_lines.setdefault(row.ad.ad_id, row.line)
        if first == row.line:
            yield row
        else:
            yield Row(row.line, None, (RowError("ad_id", f"repeats the id of line {first}"),))


def _read_ndjson(text: str) -> Iterator[Row]:
    # not splitlines(): JSON strings may hold U+2028 and its like
    for line, source in enumerate(text.split("\n"), 1):
        if not source.strip():
            continue
        try:
            yield Row(line, Ad.model_validate_json(source.encode()))
        except UnicodeEncodeError:
            yield Row(line, None, (RowError("", _NOT_UTF8),))
        except ValidationError as wrong:
            yield Row(line, None, _row_errors(wrong))


def _read_csv(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as wrong:
        yield Row(1, None, (RowError("", f"must be CSV ({wrong})"),))
        return
    if errors := _header_errors(columns):
        yield Row(1, None, errors)
        return
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as wrong:
            yield Row(line, None, (RowError("", f"must be CSV ({wrong})"),))
            continue
        if any(cells):
            yield _csv_row(line, columns, cells)


def _header_errors(columns: list[str]) -> tuple[RowError, ...]:
    if not all(map(_is_unicode, columns)):
        return (RowError("", _NOT_UTF8),)
    unknown = [RowError(c, "is no column") for c in columns if c not in CSV_COLUMNS]
    missing = [RowError(c, "this column is missing") for c in _REQUIRED if c not in columns]
    twice = {c for c in columns if columns.count(c) > 1}
    return (*unknown, *missing, *(RowError(c, "stands twice in the header") for c in sorted(twice)))


def _is_unicode(text: str) -> bool:
    """Whether no byte of `text` stands in it as a surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_row(line: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) != len(columns):
        counts = f"has {len(cells)} cells where the header has {len(columns)}"
        return Row(line, None, (RowError("", counts),))
    fields: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if not cell:
            continue
        if column.startswith("budget_"):
            fields.setdefault("budget", {})[column.removeprefix("budget_")] = cell
        else:
            fields[column] = cell.split("|") if column in _LISTS else cell
    try:
        return Row(line, Ad.model_validate(fields))
    except ValidationError as wrong:
        return Row(line, None, _row_errors(wrong))


def _row_errors(wrong: ValidationError) -> tuple[RowError, ...]:
    """Pydantic's errors, a field and a sentence each; never with what was sent."""
    return tuple(
        RowError(".".join(map(str, error["loc"])), error["msg"])
        for error in wrong.errors(include_url=False, include_context=False, include_input=False)
    )
