"""Segment auction (Hajiaghayi, Lahaie, Rezaei, Shin, "Ad Auctions for LLMs via Retrieval Augmented
Generation", arXiv 2406.09459): an ad is drawn for each segment before it is written.

Single-ad segments there: ad i wins with probability q_i b_i / sum_j q_j b_j, q its relevance, which
maximises logarithmic social welfare. As a randomisation over deterministic truthful auctions: with
Gumbel noise e_i, the highest log(q_i b_i) + e_i wins and pays per click the bid at which it would
just still have won. Then the model writes the segment with that ad, after the segments before.

Ours: an ad wins one segment at most; the model sees the drawn ad without its bid; the grammar has
it write a sentence with the ad, and an ad that the token limit still cuts off pays nothing.
"""

import asyncio
import math
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final

from models.contract.markers import read
from models.contract.prompt import Turn
from models.evaluation.mechanism import Outcome, Price
from models.evaluation.mechanisms.sentence import paragraph_grammar
from models.evaluation.policy import Draw, Policy, outcome, with_ads, without_bids
from models.evaluation.relevance import Relevance
from models.simulation.nouns import Auction
from models.simulation.objective import bids_by_id
from models.simulation.randomness import uniform

_GO_ON: Final = "Please go on with your answer."
_MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class SegmentAuction:
    """segments: 1 or more; each is a paragraph with one ad, and may have as many tokens as other
    mechanisms' whole answers."""

    policy: Policy
    relevance: Relevance
    segments: int = 2
    name: str = "segment-auction"

    async def answer(self, auction: Auction) -> Outcome:
        weights = await asyncio.to_thread(self.relevance.weights, auction.query.text, auction.ads)
        by_id = {ad.ad_id: weight for ad, weight in zip(auction.ads, weights, strict=True)}
        winners = draw_winners(auction, by_id, self.segments)
        draws: list[Draw] = []
        for winner in winners:
            draws.append(await self._segment(auction, winner, draws))
        # What a cut segment lacks is dropped, but the last one's is a fault of the answer.
        parts = [draw.reading.answer.strip() for draw in draws[:-1]]
        text = "\n\n".join([*parts, *(draw.completion.text for draw in draws[-1:])])
        sold = [ad.marked for ad in auction.ads if ad.ad_id in winners]
        reading = read(text, sold, self.segments)
        prices = tuple(
            Price(segment.ad_id, "click", winners[segment.ad_id])
            for segment in reading.insertions
            if segment.ad_id is not None
        )
        return outcome(auction, reading, prices, draws)

    async def _segment(self, auction: Auction, winner: str, before: list[Draw]) -> Draw:
        alone = without_bids(with_ads(auction, [winner]))
        query, said = auction.query.text, []
        for draw in before:
            said += [Turn("user", query), Turn("assistant", draw.reading.answer)]
            query = _GO_ON
        grammar = paragraph_grammar(alone.ads[0].marked)
        return await self.policy.write(alone, self.policy.prompt(alone, query, said), 0, grammar)


def draw_winners(auction: Auction, weights: dict[str, float], segments: int) -> dict[str, Decimal]:
    """Return each segment's winner and its price per click, in the order of the segments."""
    bids = bids_by_id(auction)
    winners: dict[str, Decimal] = {}
    for segment in range(min(segments, len(bids))):
        luck = {
            ad_id: math.log(weights[ad_id]) + _gumbel("segment", auction.seed, segment, ad_id)
            for ad_id in bids
            if ad_id not in winners
        }
        scores = {ad_id: math.log(bids[ad_id]) + own for ad_id, own in luck.items()}
        winner, *others = sorted(scores, key=lambda ad_id: (-scores[ad_id], ad_id))
        # Without a rival any bid wins.
        price = math.exp(scores[others[0]] - luck[winner]) if others else 0.0
        amount = Decimal(price).quantize(_MICRO, rounding=ROUND_DOWN)
        winners[winner] = min(amount, Decimal(bids[winner]))
    return winners


def _gumbel(*names: object) -> float:
    """A number of the standard Gumbel distribution for what `names` stand for."""
    return -math.log(-math.log(max(uniform(*names), math.ulp(0.0))))
