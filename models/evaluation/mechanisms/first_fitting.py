"""What a model under the contract could do at best: it knows which ads serve the query, and shows
the one of them that its prompt lists first.

Bids, and what a caller knows of clicks, reach a model as the order of its candidates. So what this
lacks of the best is what the draw of that order costs (`models/contract/order.py`), and what an
aligned model earns less than this is the model's. It writes nothing itself: the ad goes into an
ad-free answer. Where nobody knows what fits, it shows nothing.
"""

from dataclasses import dataclass

from models.evaluation.mechanism import Outcome
from models.evaluation.native import natively
from models.evaluation.policy import Policy, first_prices, outcome
from models.simulation.auctions import fitting
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class FirstFitting:
    """First price, for the first of the candidates that fit, as the prompt would list them."""

    policy: Policy
    name: str = "first-fitting"

    async def answer(self, auction: Auction) -> Outcome:
        draw = await self.policy.draw_without_ads(auction)
        serving = {ad.ad_id: ad for ad in fitting(auction)}
        places = [candidate.ad_id for candidate in self.policy.listed(auction)]
        first = min(serving, key=places.index, default=None)
        reading = draw.reading
        if first is not None:
            reading = natively(reading.answer, serving[first])
        return outcome(auction, reading, first_prices(auction, reading), [draw])
