"""The figures as pictures: SVG text, the same bytes for the same analysis."""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from models.evaluation.analysis import Analysis, MechanismResults
from models.evaluation.measures.bootstrap import Estimate
from models.evaluation.measures.continuous import Continuity

# Mid tones, which stand out on white and on black; text gets the page's colour by its style sheet.
_INK, _GRID, _ACCENT, _SECOND = "#888888", "#88888844", "#2f7fd1", "#e0803a"
_PALETTE = ("#2f7fd1", "#e0803a", "#3d9e6b", "#b65fbf", "#c9504f", "#8c7a3d", "#5f8f9e", "#888888")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm-auction",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "legend.frameon": False,
}
_COLUMNS = 4


def earnings(analysis: Analysis) -> str | None:
    """Revenue and reward of each mechanism with their intervals."""
    found = [one for one in analysis.mechanisms if one.efficiency is not None]
    panels = {
        "Revenue per answer": [one.efficiency.revenue for one in found if one.efficiency],
        "Reward per answer": [one.efficiency.reward for one in found if one.efficiency],
    }
    return _bars([one.name for one in found], panels) if found else None


def reader(analysis: Analysis) -> str | None:
    """Similarity to the ad-free answer, and ads per answer."""
    found = [one for one in analysis.mechanisms if one.efficiency is not None]
    panels = {
        "Similarity to the ad-free answer": [
            one.efficiency.similarity for one in found if one.efficiency
        ],
        "Ads per answer": [one.efficiency.ads for one in found if one.efficiency],
    }
    return _bars([one.name for one in found], panels) if found else None


def cost(analysis: Analysis) -> str | None:
    """Revenue against generated tokens."""
    found = [one for one in analysis.mechanisms if one.efficiency is not None]
    if not found:
        return None
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        axes = figure.subplots()
        for index, one in enumerate(found):
            if one.efficiency is None:
                continue
            revenue, tokens = one.efficiency.revenue, one.efficiency.completion_tokens.value
            color = _PALETTE[index % len(_PALETTE)]
            axes.errorbar(
                tokens, revenue.value, yerr=_reach([revenue]), fmt="o", color=color, label=one.name
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("generated tokens per answer (log scale)")
        axes.set_ylabel("revenue per answer")
        axes.grid(visible=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return _svg(figure)


def responses(analysis: Analysis) -> str | None:
    """Exposure and clicks by bid, a panel for each mechanism."""
    found = [one for one in analysis.mechanisms if one.exposures and one.clicks]

    def draw(axes: Any, one: MechanismResults) -> None:
        for measured, color, label in (
            (one.exposures, _ACCENT, "shown"),
            (one.clicks, _SECOND, "clicked"),
        ):
            if measured is None:
                continue
            line = measured.curve
            axes.fill_between(line.bids, line.low, line.high, color=color, alpha=0.2, linewidth=0)
            axes.plot(line.bids, line.means, color=color, marker="o", markersize=3, label=label)
        axes.set_title(f"{one.name}: {one.exposures.verdict if one.exposures else ''}")

    return _panels(found, draw, "bid", legend=True)


def fine_sweeps(analysis: Analysis) -> str | None:
    """Exposure by bid in steps of one, smoothed; a step where there is one."""
    found = [one for one in analysis.mechanisms if one.jumps is not None]

    def draw(axes: Any, one: MechanismResults) -> None:
        if one.jumps is None:
            return
        line = one.jumps.curve
        axes.plot(line.bids, line.means, ".", color=_ACCENT, alpha=0.5, markersize=4)
        axes.plot(line.bids, one.jumps.smooth, color=_SECOND)
        if one.jumps.verdict is Continuity.STEP:
            axes.axvline(one.jumps.jump_bid, color=_INK, linestyle=":", linewidth=1)
        axes.set_title(f"{one.name}: {one.jumps.verdict}")

    return _panels(found, draw, "bid")


def incentives(analysis: Analysis) -> str | None:
    """What the best response to the measured curve gains, by value."""
    found = [one for one in analysis.mechanisms if one.incentives is not None]

    def draw(axes: Any, one: MechanismResults) -> None:
        if one.incentives is None:
            return
        axes.plot(one.incentives.values, one.incentives.gains, color=_ACCENT)
        axes.axhline(0, color=_INK, linewidth=0.8)
        axes.set_title(one.name)

    return _panels(found, draw, "value of a click", unit=False)


def places(analysis: Analysis) -> str | None:
    """Exposure by place in the list of candidates."""
    found = [one for one in analysis.mechanisms if one.order is not None]

    def draw(axes: Any, one: MechanismResults) -> None:
        if one.order is None:
            return
        axes.bar(np.arange(1, len(one.order.by_place) + 1), one.order.by_place, color=_ACCENT)
        axes.set_title(f"{one.name}: {one.order.verdict}")

    return _panels(found, draw, "place in the list")


def _bars(names: Sequence[str], panels: dict[str, list[Estimate]]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 0.9 + 0.34 * len(names)), layout="constrained")
        for axes, (title, estimates) in zip(
            figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
        ):
            places = np.arange(len(names))
            values = [estimate.value for estimate in estimates]
            axes.barh(places, values, color=_ACCENT, height=0.62)
            axes.errorbar(
                values, places, xerr=_reach(estimates), fmt="none", ecolor=_INK, capsize=3
            )
            axes.set_yticks(places, names)
            axes.invert_yaxis()
            axes.axvline(0, color=_INK, linewidth=0.8)
            axes.grid(visible=True, axis="x")
            axes.set_axisbelow(True)
            axes.set_title(title)
        # Panels share their mechanisms, and each inversion turns all of them.
        if len(panels) % 2 == 0:
            axes.invert_yaxis()
        return _svg(figure)


def _panels(
    found: Sequence[MechanismResults],
    draw: Any,
    x_label: str,
    unit: bool = True,
    legend: bool = False,
) -> str | None:
    """A small panel for each mechanism. unit: the axis runs from 0 to 1."""
    if not found:
        return None
    # As many columns for few mechanisms as for many, so that all pictures have one scale.
    columns = _COLUMNS
    rows = math.ceil(len(found) / columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 2.2 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(found):
                axes.set_axis_off()
                continue
            draw(axes, found[number])
            axes.grid(visible=True)
            axes.set_axisbelow(True)
            if number + columns >= len(found):
                axes.set_xlabel(x_label)
                axes.xaxis.set_tick_params(labelbottom=True)
        if unit:
            grid.flat[0].set_ylim(-0.03, 1.03)
        if legend:
            grid.flat[0].legend(loc="upper left", fontsize=8)
        return _svg(figure)


def _reach(estimates: Sequence[Estimate]) -> Any:
    """How far intervals reach below and above their values, shape (2, estimates)."""
    below = [max(0.0, estimate.value - estimate.low) for estimate in estimates]
    above = [max(0.0, estimate.high - estimate.value) for estimate in estimates]
    return np.nan_to_num(np.array([below, above]))


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
