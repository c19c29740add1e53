"""Files of JSON lines that a run appends to, and that a kill may cut off anywhere."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in `path`, none where there is no file; a line cut off is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")  # only this byte ends a row
    return [json.loads(line) for line in whole.split(b"\n") if line]


def open_for_rows(path: Path) -> TextIO:
    """Open `path` to append rows to, after its last whole line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
    return path.open("a", encoding="utf-8")


def keep_rows(path: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Leave in `path` the rows that `is_kept` says true of, all at once."""
    rows = read_rows(path)
    if all(map(is_kept, rows)):
        return
    write_rows(path, filter(is_kept, rows))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Leave `rows` in `path`, all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            append_row(file, row)
    os.replace(partial, path)


def append_row(file: TextIO, row: dict[str, Any]) -> None:
    """Write one row, so that a kill after this call does not lose it."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()
