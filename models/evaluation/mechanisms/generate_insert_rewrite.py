"""Answer first, insert an ad, then rewrite: three calls, the pattern of the Ad-LLM baselines in
GEM-Bench (arXiv 2509.14221).

An ad is retrieved for the finished answer, a sentence with it goes where the text is closest to it,
and the whole is rewritten to read well. Ours: retrieval weighs bids, as an auction must (the source
has none); and a rewriting that loses the ad is thrown away.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from models.contract.markers import read
from models.contract.prompt import Turn
from models.evaluation.mechanism import Outcome
from models.evaluation.mechanisms.sentence import sentence_grammar
from models.evaluation.policy import (
    Draw,
    Policy,
    first_prices,
    outcome,
    with_ads,
    without_bids,
)
from models.evaluation.relevance import Relevance
from models.simulation.nouns import Ad, Auction

_INSERT: Final = "Add one sentence to your answer that recommends the ad from the list."
_REWRITE: Final = (
    "Rewrite your answer so that it reads as one natural text. Keep the recommendation in it."
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class GenerateInsertRewrite:
    """First price, for the one ad of the highest bid * relevance."""

    policy: Policy
    relevance: Relevance
    name: str = "generate-insert-rewrite"

    async def answer(self, auction: Auction) -> Outcome:
        plain = await self.policy.draw_without_ads(auction)
        weights = await asyncio.to_thread(self.relevance.weights, auction.query.text, auction.ads)
        offers = zip(auction.ads, auction.bids, weights, strict=True)
        ad, *_ = min(offers, key=lambda offer: (-offer[1] * offer[2], offer[0].ad_id))
        alone = without_bids(with_ads(auction, [ad.ad_id]))
        answer = plain.reading.answer.strip()
        added = await self._again(alone, answer, _INSERT, sentence_grammar(ad.marked))
        inserted = await self._inserted(answer, added.reading.answer.strip(), ad)
        rewritten = await self._again(alone, inserted, _REWRITE, None)
        reading = rewritten.reading
        if not reading.insertions:
            reading = read(inserted, [ad.marked], 1)
        draws = [plain, added, rewritten]
        return outcome(auction, reading, first_prices(auction, reading), draws)

    async def _again(
        self, auction: Auction, answer: str, request: str, grammar: str | None
    ) -> Draw:
        said = (Turn("user", auction.query.text), Turn("assistant", answer))
        return await self.policy.write(
            auction, self.policy.prompt(auction, request, said), 0, grammar
        )

    async def _inserted(self, answer: str, sentence: str, ad: Ad) -> str:
        """`answer` with `sentence` after the sentence that is closest to the ad."""
        sentences = [part for part in _SENTENCE_END.split(answer) if part]
        if not sentences:
            return sentence
        close = await asyncio.to_thread(self.relevance.closeness, ad, sentences)
        place = close.index(max(close)) + 1
        return " ".join([*sentences[:place], sentence, *sentences[place:]])
