"""The figures as tables: made once, shown as Markdown and in the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.evaluation.analysis import Analysis, MechanismResults
from models.evaluation.measures.bootstrap import Estimate

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names the mechanism. `note`: how to read it."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        lines = [
            f"### {self.title}",
            "",
            self.note,
            "",
            _line(self.columns),
            _line(["---"] + ["---:"] * (len(self.columns) - 1)),
            *map(_line, self.rows),
        ]
        return "\n".join(lines) + "\n"


def tables(analysis: Analysis) -> list[Table]:
    """Return the tables that the run has figures for."""
    made = [
        _earnings(analysis),
        _reader(analysis),
        _cost(analysis),
        _bids(analysis),
        _incentives(analysis),
    ]
    return [table for table in made if table.rows]


def shown(estimate: Estimate | None, digits: int = 2, is_share: bool = False) -> str:
    """Return the figure with its interval."""
    if estimate is None or math.isnan(estimate.value):
        return _NOTHING
    value = _number(estimate.value, digits, is_share)
    if math.isnan(estimate.low):
        return value
    low, high = (_number(bound, digits, is_share) for bound in (estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _earnings(analysis: Analysis) -> Table:
    gaps = analysis.optimum.gaps if analysis.optimum else {}

    def row(one: MechanismResults) -> tuple[str, ...] | None:
        if (found := one.efficiency) is None:
            return None
        against = one.against_baseline
        return (
            one.name,
            str(found.queries),
            shown(found.revenue),
            shown(found.reward),
            shown(found.value),
            shown(against.revenue_ratio if against else None),
            shown(against.reward_difference if against else None),
            shown(gaps.get(one.name)),
        )

    note = (
        "Per answer, in units of bids. Revenue: what advertisers pay, expected over clicks. Value: "
        "what they get at the values they declare. Reward: value less the reader's harm (ads and "
        "faults). In brackets, here and below: 95 % intervals over the queries. "
    )
    if analysis.optimum is not None:
        note += (
            f"π* is the closed-form optimum over the policy's own draws: reward "
            f"{shown(analysis.optimum.reward)}, of the plain draws "
            f"{shown(analysis.optimum.policy_reward)}; {analysis.optimum.effective_draws:.1f} "
            "effective draws."
        )
    baseline = analysis.baseline or "baseline"
    columns = (
        *("mechanism", "queries", "revenue", "reward", "value"),
        *(f"revenue ÷ {baseline}", f"reward − {baseline}", "π* − reward"),
    )
    return Table("Earnings", note, columns, _rows(analysis, row))


def _reader(analysis: Analysis) -> Table:
    def row(one: MechanismResults) -> tuple[str, ...] | None:
        if (found := one.efficiency) is None:
            return None
        plain, right = one.against_no_ads, one.targeting
        return (
            one.name,
            shown(found.ads),
            shown(found.ctr, is_share=True),
            shown(found.faults),
            shown(found.similarity),
            shown(plain.similarity_difference if plain else None),
            shown(right.fitting_shown if right else None, is_share=True),
            shown(right.better_shown if right else None, is_share=True),
            shown(right.none_shown if right else None, is_share=True),
            shown(found.made_up, is_share=True),
        )

    note = (
        "Per answer. CTR: clicks per ad shown. Similarity: of the answer without its ads to an "
        "ad-free answer of the unaligned model; that of no-ads is two of those, the yardstick, and "
        "aligned-no-ads is the aligned model without candidates. Fitting shown: where some "
        "candidate fits. Better shown: the one of higher bid × click probability, where two fit. "
        "None shown: where none fits. Made up: answers with a name after an @ that is no marker."
    )
    columns = (
        *("mechanism", "ads", "CTR", "faults", "similarity", "less no-ads'"),
        *("fitting shown", "better shown", "none shown", "made up"),
    )
    return Table("What the reader gets", note, columns, _rows(analysis, row))


def _cost(analysis: Analysis) -> Table:
    def row(one: MechanismResults) -> tuple[str, ...] | None:
        if (found := one.efficiency) is None:
            return None
        return (
            one.name,
            f"{found.model_calls.value:.1f}",
            f"{found.prompt_tokens.value:,.0f}",
            f"{found.completion_tokens.value:,.0f}",
            shown(found.revenue_per_1000_tokens),
        )

    note = "Per answer; prompts are counted in full, also where the prefix cache serves them."
    columns = (
        *("mechanism", "model calls", "prompt tokens", "generated tokens"),
        "revenue per 1,000 generated tokens",
    )
    return Table("Cost", note, columns, _rows(analysis, row))


def _bids(analysis: Analysis) -> Table:
    def row(one: MechanismResults) -> tuple[str, ...] | None:
        if one.exposures is None and one.jumps is None and one.order is None:
            return None
        return (
            one.name,
            *_response(one),
            shown(one.clicks.pooled_spearman) if one.clicks else _NOTHING,
            one.clicks.verdict if one.clicks else _NOTHING,
            f"{one.clicks.falling} of {one.clicks.ads}" if one.clicks else _NOTHING,
            f"{_number(one.jumps.jump)} / {_number(one.jumps.limit)}" if one.jumps else _NOTHING,
            one.jumps.verdict if one.jumps else _NOTHING,
            shown(one.order.early_advantage) if one.order else _NOTHING,
            one.order.verdict if one.order else _NOTHING,
        )

    note = (
        "One ad's bid from 1 to 100, all else equal. Spearman: of the bid with single exposures, "
        "and with mean clicks. Gain: exposure at the upper third of bids less that at the lower. "
        "Decrease: the largest, and the chance of as large a one from noise. Falling: ads whose "
        "own clicks fall with the bid, significantly. Jump: the largest in the fine sweep / the "
        "smallest that could be told from noise. Early: exposure in the first half of the "
        "request's list less that in the second; what the prompt lists first is drawn by bids."
    )
    columns = (
        *("mechanism", "Spearman", "gain", "decrease (p)", "exposure"),
        *("Spearman of mean clicks", "clicks", "falling"),
        *("jump / limit", "continuity", "early", "order"),
    )
    return Table("Bids and order", note, columns, _rows(analysis, row))


def _response(one: MechanismResults) -> tuple[str, str, str, str]:
    if (found := one.exposures) is None:
        return (_NOTHING,) * 4
    return (
        shown(found.spearman),
        shown(found.gain),
        f"{found.decrease:.2f} ({found.decrease_p:.2f})",
        found.verdict,
    )


def _incentives(analysis: Analysis) -> Table:
    def row(one: MechanismResults) -> tuple[str, ...] | None:
        if (found := one.incentives) is None:
            return None
        return (
            one.name,
            shown(found.best_response_gain),
            shown(found.value_regret),
            _number(found.lowest_utility),
            "yes" if found.is_individually_rational else "no",
        )

    note = (
        "Means over values 1..100, per answer, from the measured curves, chosen on one half of the "
        "queries and judged on the other. Gain: of utility maximisers who bid best instead of "
        "their value. Regret: of value maximisers who bid their value."
    )
    columns = (
        *("mechanism", "best-response gain", "value maximisers' regret"),
        *("lowest truthful utility", "individually rational"),
    )
    return Table("Incentives", note, columns, _rows(analysis, row))


def _rows(
    analysis: Analysis, row: Callable[[MechanismResults], tuple[str, ...] | None]
) -> tuple[tuple[str, ...], ...]:
    return tuple(cells for one in analysis.mechanisms if (cells := row(one)) is not None)


def _number(value: float, digits: int = 2, is_share: bool = False) -> str:
    if is_share:
        return f"{value:.0%}"
    rounded = f"{value:.{digits}f}"
    # No "-0.00": which side of nothing it rounds from says nothing.
    return rounded.removeprefix("-") if float(rounded) == 0 else rounded.replace("-", "−")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
