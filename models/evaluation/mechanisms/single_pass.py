"""The model is the auction: one pass of a policy, at first price (LLM-Auction, arXiv 2512.10551).

With the unaligned model this is the source's "pretrained" baseline, with an aligned one the method
itself; only the weights differ.
"""

from dataclasses import dataclass

from models.evaluation.mechanism import Outcome
from models.evaluation.policy import Policy, first_prices, outcome
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class SinglePass:
    """One generation; whatever it inserts is shown, and pays its bid when clicked."""

    name: str
    policy: Policy

    async def answer(self, auction: Auction) -> Outcome:
        draw = await self.policy.draw(auction)
        return outcome(auction, draw.reading, first_prices(auction, draw.reading), [draw])
