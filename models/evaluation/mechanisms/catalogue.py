"""The mechanisms by the names that the command line and the report call them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from models.evaluation.mechanism import Mechanism
from models.evaluation.mechanisms.best_of import BestOf
from models.evaluation.mechanisms.first_fitting import FirstFitting
from models.evaluation.mechanisms.generate_insert_rewrite import GenerateInsertRewrite
from models.evaluation.mechanisms.mosaic import Mosaic
from models.evaluation.mechanisms.no_ads import NoAds
from models.evaluation.mechanisms.position_auction import PositionAuction
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.mechanisms.segment_auction import SegmentAuction
from models.evaluation.mechanisms.single_pass import SinglePass
from models.evaluation.policy import Policy
from models.evaluation.relevance import Relevance

ALIGNED: Final = "aligned"
ALIGNED_NO_ADS: Final = "aligned-no-ads"
OF_ALIGNED: Final = frozenset({ALIGNED, ALIGNED_NO_ADS})
"""Those that the aligned weights answer."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What mechanisms are made of. aligned: the policy of the aligned weights, where there is one.

    tau: MOSAIC's temperature in units of currency.
    """

    policy: Policy
    sampler: Sampler
    relevance: Relevance
    aligned: Policy | None = None
    tau: float = 10.0


def _aligned(parts: Parts, name: str) -> Policy:
    if parts.aligned is None:
        raise ValueError(f"The mechanism {name} needs --aligned: a directory with aligned weights")
    return parts.aligned


MECHANISMS: Mapping[str, Callable[[Parts], Mechanism]] = MappingProxyType(
    {
        "pretrained": lambda parts: SinglePass("pretrained", parts.policy),
        ALIGNED: lambda parts: SinglePass(ALIGNED, _aligned(parts, ALIGNED)),
        "mosaic": lambda parts: Mosaic(parts.sampler, parts.tau),
        "best-of-k": lambda parts: BestOf(parts.sampler),
        "generate-insert-rewrite": lambda parts: GenerateInsertRewrite(
            parts.policy, parts.relevance
        ),
        "segment-auction": lambda parts: SegmentAuction(parts.policy, parts.relevance),
        "position-auction": lambda parts: PositionAuction(parts.policy, parts.relevance),
        "first-fitting": lambda parts: FirstFitting(parts.policy),
        "no-ads": lambda parts: NoAds(parts.policy),
        ALIGNED_NO_ADS: lambda parts: NoAds(_aligned(parts, ALIGNED_NO_ADS), ALIGNED_NO_ADS),
    }
)
"""In the order that the report shows them."""
