"""The report holds the figures, needs nothing else, and is the same for the same run."""

import re
from pathlib import Path

import pytest
from small_run import a_run

from models.evaluation.report.page import NothingToReport, write_report


class TestReport:
    async def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        await a_run(tmp_path / "a", concurrency=1)
        await a_run(tmp_path / "b", concurrency=9)
        first = [file.read_bytes() for file in write_report(tmp_path / "a")]
        assert [file.read_bytes() for file in write_report(tmp_path / "b")] == first

    async def test_the_page_needs_nothing_else_and_shows_every_mechanism(
        self, tmp_path: Path
    ) -> None:
        await a_run(tmp_path)
        html, markdown = (file.read_text() for file in write_report(tmp_path))
        assert not re.search(r'(src|href)="(?!#)', html)
        assert "<script" not in html
        assert html.count("<svg") == 7
        assert "&lt;typist&gt;" in html
        for name in ("rising", "blind", "no-ads"):
            assert f"<td>{name}</td>" in html
            assert f"| {name} |" in markdown
        assert "individually rational" in markdown

    async def test_tables_have_as_many_cells_as_columns(self, tmp_path: Path) -> None:
        await a_run(tmp_path)
        _, markdown = write_report(tmp_path)
        for block in re.findall(r"(?:^\|.*\n)+", markdown.read_text(), re.M):
            assert len({line.count("|") for line in block.splitlines()}) == 1

    def test_an_empty_directory_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(NothingToReport, match="evaluate run"):
            write_report(tmp_path)
