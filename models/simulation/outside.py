"""Ads and queries from outside: JSON lines with whatever field names people use, made fit.

A row that cannot be made fit is reported with its line and left out; nothing else is guessed at.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from models.contract.markers import AD_ID_PATTERN
from models.contract.neutral import neutralise_line
from models.contract.titles import MAX_TITLE_CHARACTERS, check_title
from models.simulation.nouns import Ad, Query

MAX_DESCRIPTION_CHARACTERS: Final = 300
_MAX_QUERY_CHARACTERS = 4000

_ID_FIELDS = ("ad_id", "id", "product_id", "sku")
_TITLE_FIELDS = ("title", "name", "headline")
_DESCRIPTION_FIELDS = ("description", "text", "snippet", "body")
_CATEGORY_FIELDS = ("category", "topic")
_QUERY_FIELDS = ("query", "question", "text", "prompt")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line, counted from 1, that could not be used, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """What a file held, in its order."""

    good: tuple[Row, ...]
    bad: tuple[BadRow, ...]


def read_ads(path: Path) -> Rows[Ad]:
    """Read a catalogue of ads: JSON lines.

    id: `ad_id`, `id`, `product_id` or `sku` (with none, `Ad-` and the line's number); title:
    `title`, `name` or `headline`; and where there are any, `description`, `text`, `snippet` or
    `body`, and `category` or `topic`. An ad without a category is a kind of its own: its title
    stands for it. Categories that differ in case alone are one, as spelled first. Titles and
    descriptions are clipped after a whole word. Raises OSError.
    """
    seen: set[str] = set()
    spelled: dict[str, str] = {}

    def ad(line: int, fields: Mapping[str, Any]) -> Ad:
        ad_id = _first(fields, _ID_FIELDS) or f"Ad-{line}"
        if not re.fullmatch(AD_ID_PATTERN, ad_id):
            raise ValueError(f"the id {ad_id!r} does not match {AD_ID_PATTERN}")
        if ad_id in seen:
            raise ValueError(f"the id {ad_id} stands on an earlier line already")
        title = _clip(_first(fields, _TITLE_FIELDS), MAX_TITLE_CHARACTERS)
        if not title:
            raise ValueError(f"there is no title: one of {', '.join(_TITLE_FIELDS)} is needed")
        title = check_title(title)
        seen.add(ad_id)
        category = _clip(_first(fields, _CATEGORY_FIELDS), MAX_TITLE_CHARACTERS) or title
        return Ad(
            ad_id=ad_id,
            title=title,
            category=spelled.setdefault(category.casefold(), category),
            description=_clip(_first(fields, _DESCRIPTION_FIELDS), MAX_DESCRIPTION_CHARACTERS),
        )

    return _read(path, ad)


def read_queries(path: Path) -> Rows[Query]:
    """Read queries: JSON lines with `query` (or `question`, `text`, `prompt`), and where it is
    known `category` or `topic`. Every query gets a user of its own, without a profile.

    Raises OSError.
    """
    seen: set[str] = set()

    def query(line: int, fields: Mapping[str, Any]) -> Query:
        text = _clip(_first(fields, _QUERY_FIELDS), _MAX_QUERY_CHARACTERS)
        if not text:
            raise ValueError(f"there is no question: one of {', '.join(_QUERY_FIELDS)} is needed")
        if text.casefold() in seen:
            raise ValueError("the same question stands on an earlier line already")
        seen.add(text.casefold())
        category = _clip(_first(fields, _CATEGORY_FIELDS), MAX_TITLE_CHARACTERS)
        return Query(f"x{line:05d}-q1", f"x{line:05d}", text, category or None)

    return _read(path, query)


def with_categories_of(ads: Iterable[Ad], queries: Iterable[Query]) -> tuple[Query, ...]:
    """`queries` with each category as `ads` spell it, whatever its case; None where no ad has it,
    since nobody knows then which ads serve the query."""
    spelled = {ad.category.casefold(): ad.category for ad in ads}
    return tuple(
        replace(query, category=spelled.get(query.category.casefold())) if query.category else query
        for query in queries
    )


def _read(path: Path, parse: Callable[[int, Mapping[str, Any]], Row]) -> Rows[Row]:
    good: list[Row] = []
    bad: list[BadRow] = []
    for line, text in _lines(path):
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError("it is not a JSON object")
            good.append(parse(line, fields))
        except json.JSONDecodeError as error:
            bad.append(BadRow(line, f"it is not JSON: {error}"))
        except ValueError as error:
            bad.append(BadRow(line, str(error)))
    return Rows(tuple(good), tuple(bad))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, counted from 1."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of the fields that says something; numbers count as text."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""


def _clip(text: str, limit: int) -> str:
    """`text` as one harmless line of at most `limit` characters, after a whole word if it can."""
    text = " ".join(neutralise_line(text).split())
    if len(text) <= limit:
        return text
    start, _, _ = text[: limit + 1].rpartition(" ")
    return (start or text[:limit]).rstrip(" ,;:-")
