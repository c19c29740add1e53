"""The page of results."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.ask import percentile
from loadtest.bench.results import Bars, Lines, Result, Table, save, spread


def result(key: str, text: str) -> Result:
    table = Table(["what", "value"], [["a", "1"]])
    return Result(key, f"Part {key}", "python -m it", text, [table])


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    save(result("b", "old"), page)
    save(result("a", "first"), page)
    save(result("b", "new"), page)
    text = page.read_text()
    assert text.index("## Part a") < text.index("## Part b")
    assert "old" not in text
    assert text.count("## Part b") == 1
    assert "| a | 1 |" in text
    assert "`python -m it`" in text


def test_what_a_gpu_did_stands_beside_what_a_cpu_did(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    bars = Bars("bars", "Bars", "s", ["x"], {"one": [1]})
    on_cpu = replace(result("a", "of a CPU"), plots=[bars])
    save(on_cpu, page)
    save(replace(on_cpu, text="of a GPU").on_gpu(), page)
    text = page.read_text()
    assert text.index("of a CPU") < text.index("## Part a, on a GPU") < text.index("of a GPU")
    assert (tmp_path / "bars.svg").exists()
    assert (tmp_path / "bars_gpu.svg").exists()


def test_plots_stand_beside_the_page(tmp_path: Path) -> None:
    bars = Bars("bars", "Bars", "s", ["x", "y"], {"one": [1, 2], "two": [2, 1]})
    lines = Lines("lines", "Lines", [0, 1], {"lag": [1, 2], "memory": [3, 4]})
    plotted = Result("a", "A", "it", "", [], [bars, lines])
    save(plotted, tmp_path / "RESULTS.md")
    assert "![Bars](bars.svg)" in (tmp_path / "RESULTS.md").read_text()
    assert "<svg" in (tmp_path / "bars.svg").read_text()
    assert "<svg" in (tmp_path / "lines.svg").read_text()


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert spread([3, 1, 2]) == "2.00 (1.00–3.00)"
    assert spread([1234.5], 0) == "1,234"


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.9, 9), (0.99, 10), (1, 10)])
def test_a_percentile_is_a_value_that_was_seen(share: float, value: int) -> None:
    assert percentile(list(range(1, 11)), share) == value
