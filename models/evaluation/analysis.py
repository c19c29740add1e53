"""All measures of a run at once. Pure: the same records give the same figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.evaluation.config import Study
from models.evaluation.measures.bootstrap import Array
from models.evaluation.measures.continuous import FEWEST_BIDS, Jumps, jumps
from models.evaluation.measures.efficiency import Comparison, Efficiency, comparison, efficiency
from models.evaluation.measures.incentives import Incentives, incentives
from models.evaluation.measures.monotone import Monotonicity, monotonicity
from models.evaluation.measures.optimum import Optimum, optimum
from models.evaluation.measures.order import OrderFreeness, order_freeness
from models.evaluation.measures.sweeps import Sweeps, sweeps
from models.evaluation.measures.targeting import Targeting, targeting
from models.evaluation.plan import DRAWS
from models.evaluation.record import Record

_BASELINES = ("pretrained", "no-ads")
_YARDSTICK = "no-ads"
_SEED = 20251210
_FEWEST_ROWS = 2


@dataclass(frozen=True, slots=True)
class MechanismResults:
    """What was measured of one mechanism; None for what the run did not take.

    against_baseline: on the same auctions. against_no_ads: likewise; its similarity difference is
    how much less like the ad-free answer this one is than another ad-free answer.
    """

    name: str
    efficiency: Efficiency | None
    against_baseline: Comparison | None
    against_no_ads: Comparison | None
    targeting: Targeting | None
    exposures: Monotonicity | None
    clicks: Monotonicity | None
    jumps: Jumps | None
    incentives: Incentives | None
    order: OrderFreeness | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """baseline: what ratios are taken against; None where no baseline ran."""

    mechanisms: tuple[MechanismResults, ...]
    baseline: str | None
    optimum: Optimum | None


def analyse(
    records: Sequence[Record], names: Sequence[str], beta: float, *, is_fit_known: bool = True
) -> Analysis:
    """names: the mechanisms in the order to show. beta: of the KL term (`optimum`), over 0.

    is_fit_known: whether it is known which ads serve which query; otherwise there is no targeting.
    """
    records = sorted(records, key=lambda one: one.key)
    by_name = {name: [one for one in records if one.mechanism == name] for name in names}
    answered = {name: _of(Study.EFFICIENCY, found) for name, found in by_name.items()}
    baseline = next((name for name in _BASELINES if answered.get(name)), None)
    draws = [one for one in records if one.mechanism == DRAWS]
    return Analysis(
        mechanisms=tuple(
            _results(
                name,
                found,
                answered[baseline] if baseline else [],
                answered.get(_YARDSTICK, []),
                is_fit_known,
            )
            for name, found in by_name.items()
        ),
        baseline=baseline,
        optimum=optimum(draws, answered, beta, _SEED) if draws else None,
    )


def _results(
    name: str,
    records: Sequence[Record],
    baseline: Sequence[Record],
    no_ads: Sequence[Record],
    is_fit_known: bool,
) -> MechanismResults:
    answered = _of(Study.EFFICIENCY, records)
    sweep = sweeps(_of(Study.BID_RESPONSE, records))
    fine = sweeps(_of(Study.CONTINUITY, records))
    has_sweep = len(sweep.clicks) >= _FEWEST_ROWS
    has_curve = len(fine.clicks) > 0 and len(fine.bids) >= FEWEST_BIDS
    return MechanismResults(
        name=name,
        efficiency=efficiency(answered, _SEED) if answered else None,
        against_baseline=_compared(answered, baseline),
        against_no_ads=_compared(answered, no_ads),
        targeting=targeting(answered, _SEED) if answered and is_fit_known else None,
        exposures=_monotone(sweep, sweep.exposures) if has_sweep else None,
        clicks=_monotone(sweep, sweep.clicks) if has_sweep else None,
        jumps=jumps(fine.bids, fine.exposures, _SEED) if has_curve else None,
        incentives=incentives(sweep, _SEED) if has_sweep else None,
        order=order_freeness(_of(Study.ORDER, records), _SEED),
    )


def _monotone(sweep: Sweeps, responses: Array) -> Monotonicity:
    return monotonicity(sweep.bids, responses, sweep.queries, _SEED)


def _compared(ours: Sequence[Record], theirs: Sequence[Record]) -> Comparison | None:
    shared = {one.auction_id for one in ours} & {one.auction_id for one in theirs}
    return comparison(ours, theirs, _SEED) if shared else None


def _of(study: Study, records: Sequence[Record]) -> list[Record]:
    return [one for one in records if one.study is study]
