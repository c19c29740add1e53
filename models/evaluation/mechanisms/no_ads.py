"""A model's answer where there is no candidate. The unaligned one's is what ads are measured
against; an aligned one may make ads up, which nobody has paid for.
"""

from dataclasses import dataclass

from models.evaluation.mechanism import Outcome
from models.evaluation.policy import Policy, outcome
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class NoAds:
    """One generation that knows of no ads."""

    policy: Policy
    name: str = "no-ads"

    async def answer(self, auction: Auction) -> Outcome:
        draw = await self.policy.draw_without_ads(auction)
        return outcome(auction, draw.reading, (), [draw])
