"""The classic: a generalised second-price auction for slots below the answer, which knows no ads.

Edelman, Ostrovsky, Schwarz, "Internet Advertising and the Generalized Second-Price Auction"
(American Economic Review 97:1, 2007), with the quality-weighted ranking of search engines: slots go
to the highest bid * quality, and each pays per click the bid at which it would keep its slot.
Quality is the ad's relevance to the query; no reserve price, so all slots are filled.
"""

import asyncio
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from models.contract.markers import read
from models.evaluation.mechanism import Outcome, Price
from models.evaluation.policy import Policy, outcome
from models.evaluation.relevance import Relevance
from models.simulation.nouns import Auction

_MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class PositionAuction:
    """slots: how many ads stand below an answer, each on a line of its own; 1 or more."""

    policy: Policy
    relevance: Relevance
    slots: int = 2
    name: str = "position-auction"

    async def answer(self, auction: Auction) -> Outcome:
        draw = await self.policy.draw_without_ads(auction)
        weights = await asyncio.to_thread(self.relevance.weights, auction.query.text, auction.ads)
        prices = slot_prices(auction, weights, self.slots)
        markers = {ad.ad_id: ad.marked.marker for ad in auction.ads}
        lines = "".join(f"\nSponsored: {markers[price.ad_id]}" for price in prices)
        text = f"{draw.reading.answer}\n{lines}" if lines else draw.reading.answer
        reading = read(text, [ad.marked for ad in auction.ads], self.slots)
        return outcome(auction, reading, prices, [draw])


def slot_prices(auction: Auction, qualities: list[float], slots: int) -> tuple[Price, ...]:
    """Return the slots' prices, from the top; equal scores go by id."""
    offers = sorted(
        zip(auction.ads, auction.bids, qualities, strict=True),
        key=lambda offer: (-offer[1] * offer[2], offer[0].ad_id),
    )
    prices = []
    for place, (ad, bid, quality) in enumerate(offers[:slots]):
        follower = offers[place + 1] if place + 1 < len(offers) else None
        needed = follower[1] * follower[2] / quality if follower else 0.0
        amount = Decimal(needed).quantize(_MICRO, rounding=ROUND_DOWN)
        prices.append(Price(ad.ad_id, "click", min(amount, Decimal(bid))))
    return tuple(prices)
