"""The best of K draws by their true reward, at first price: an oracle, as no model knows the truth.

What any way to choose among K answers of this policy can come to at most.
"""

from dataclasses import dataclass

from models.evaluation.mechanism import Outcome
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.policy import first_prices, outcome
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class BestOf:
    """The draw of the highest reward; of equal ones the first."""

    sampler: Sampler
    name: str = "best-of-k"

    async def answer(self, auction: Auction) -> Outcome:
        scored = await self.sampler.draws(auction)
        best = max(scored, key=lambda one: one.reward).draw.reading
        draws = [one.draw for one in scored]
        return outcome(auction, best, first_prices(auction, best), draws)
