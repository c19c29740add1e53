"""What a run is: everything that its results follow from, besides the model and the world."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.simulation.objective import Objective


class Study(StrEnum):
    """What an answer is taken for."""

    EFFICIENCY = "efficiency"
    """Every mechanism once on the same auctions."""
    BID_RESPONSE = "bid_response"
    """One ad's bid over 1, 10, 20, .. 100, all else equal, seeds included."""
    CONTINUITY = "continuity"
    """One ad's bid over 1..100 in one query."""
    ORDER = "order"
    """The same auctions, candidates in several orders."""
    OPTIMUM = "optimum"
    """The policy's draws with their rewards."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many answers each study takes. 0 leaves a study out; else all are 1 or more.

    auctions: answered once by every mechanism (efficiency). sweep_queries: in each, one ad's bid
    takes 11 values, `sweep_repeats` answers each (monotone). curve_repeats: one query, one ad, bids
    1..100 in steps of `curve_step`, answers each (continuous). order_auctions: each with its
    candidates in `order_rotations` orders. is_sampling_cheap: the mechanisms that choose among many
    draws also take part in the last two, where each repeat and order costs them all draws anew.
    """

    auctions: int = 200
    sweep_queries: int = 50
    sweep_repeats: int = 4
    curve_repeats: int = 200
    curve_step: int = 1
    order_auctions: int = 50
    order_rotations: int = 4
    is_sampling_cheap: bool = True


QUICK = Sizes(
    auctions=12,
    sweep_queries=6,
    sweep_repeats=1,
    curve_repeats=5,
    curve_step=5,
    order_auctions=6,
    order_rotations=4,
    is_sampling_cheap=False,
)
"""Under 10 minutes on two cores with the default small model."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings of a run. candidates: ads in each auction, 1 or more. draws: K of the mechanisms
    that choose among draws. tau: MOSAIC's temperature; beta: of the KL term in the objective, for
    the closed-form optimum; both in units of currency, over 0. has_pctr: every prompt lists its
    candidates by bid times what a caller's own click model expects (`callers_pctr`), instead of by
    bid."""

    mechanisms: tuple[str, ...]
    studies: tuple[Study, ...] = tuple(Study)
    seed: int = 1
    candidates: int = 8
    layout: Layout = Layout.INLINE
    max_ads: int = 3
    draws: int = 20
    tau: float = 10.0
    beta: float = 10.0
    is_constrained: bool = True
    has_pctr: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    objective: Objective = field(default_factory=Objective)
    sizes: Sizes = field(default_factory=Sizes)

    def as_json(self) -> dict[str, Any]:
        """Return the settings in JSON's types."""
        return asdict(self) | {"mechanisms": list(self.mechanisms), "studies": list(self.studies)}
