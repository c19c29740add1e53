"""Answer first, insert an ad, then rewrite: three calls, the pattern of the Ad-LLM baselines in
GEM-Bench (arXiv 2509.14221).

Ours: the model itself picks the ad in the second call, from the same list and bids as everywhere
here, where the source retrieves it by embeddings; and the rewriting keeps every ad that was
inserted, by grammar. Where none was, there is nothing to rewrite, and two calls are made.
"""

from dataclasses import dataclass
from typing import Final

from models.contract.prompt import Turn
from models.evaluation.mechanism import Outcome
from models.evaluation.policy import Draw, Policy, first_prices, outcome, with_ads
from models.simulation.nouns import Auction

_INSERT: Final = (
    "Say your answer again, word for word, and weave in an ad from the list where one serves me. "
    "Change nothing else."
)
_REWRITE: Final = (
    "Rewrite your answer so that it reads as one natural text. Keep every recommendation in it."
)


@dataclass(frozen=True, slots=True)
class GenerateInsertRewrite:
    """First price."""

    policy: Policy
    name: str = "generate-insert-rewrite"

    async def answer(self, auction: Auction) -> Outcome:
        plain = await self.policy.draw_without_ads(auction)
        inserted = await self._again(auction, plain.reading.answer, _INSERT)
        draws = [plain, inserted]
        reading = inserted.reading
        shown = [segment.ad_id for segment in reading.insertions if segment.ad_id]
        if shown:
            kept = with_ads(auction, shown)
            draws.append(await self._again(kept, reading.answer, _REWRITE, len(shown)))
            reading = draws[-1].reading
        return outcome(auction, reading, first_prices(auction, reading), draws)

    async def _again(self, auction: Auction, answer: str, request: str, min_ads: int = 0) -> Draw:
        said = (Turn("user", auction.query.text), Turn("assistant", answer))
        prompt = self.policy.prompt(auction, request, said)
        return await self.policy.write(auction, prompt, min_ads=min_ads)
