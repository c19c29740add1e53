"""What the mechanisms that choose among many draws of one policy have in common: the draws.

The policy sees HIDDEN_BID for every bid, so that the set of draws is the same whatever is bid:
a bid moves the choice among them, never the set. Truthfulness of MOSAIC needs this. All draws of
an auction have one prompt, which the engine's prefix cache reads once.
"""

import asyncio
from dataclasses import dataclass

from models.evaluation.policy import Draw, Policy, without_bids
from models.simulation.nouns import Auction, Click, Exposure, SimulatedUsers
from models.simulation.objective import Objective


@dataclass(frozen=True, slots=True)
class Scored:
    """A draw with what its reader would click on, and its reward at the auction's bids."""

    draw: Draw
    clicks: tuple[Click, ...]
    reward: float


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws `count` (1 or more) answers of one auction and scores them.

    users: whose true click probabilities stand in for a pCTR model.
    """

    policy: Policy
    users: SimulatedUsers
    objective: Objective
    count: int = 20

    async def draws(self, auction: Auction) -> list[Scored]:
        blind = without_bids(auction)
        draws = await asyncio.gather(
            *(self.policy.draw(blind, number) for number in range(self.count))
        )
        exposures = [Exposure(auction, draw.reading) for draw in draws]
        return [
            Scored(draw, clicks, self.objective.reward(auction, draw.reading, clicks))
            for draw, clicks in zip(draws, await self.users.clicks(exposures), strict=True)
        ]
