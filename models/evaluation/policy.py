"""A language model that answers auctions under the contract: the prompt, the draw, the reading.

Every mechanism writes through this, so all of them have the same prompts, sampling and grammar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from models.contract.grammar import grammar
from models.contract.markers import Reading, read
from models.contract.prompt import Candidate, Layout, Prompt, Turn, build_prompt
from models.engine.interface import Sampling
from models.evaluation.callers_pctr import CallersPctr
from models.evaluation.mechanism import Outcome, Price
from models.simulation.auctions import listed
from models.simulation.completions import Completion, Completions
from models.simulation.nouns import Auction
from models.simulation.objective import bids_by_id
from models.simulation.randomness import derived_seed

HIDDEN_BID = 50
"""What a prompt shows as everybody's bid where the model must not see bids."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One completion, read."""

    reading: Reading
    completion: Completion


@dataclass(frozen=True, slots=True)
class Policy:
    """A model at fixed settings. sampling: its seed is replaced in every draw.

    max_ads: the most that an answer may hold, 0 or more. is_constrained: decoding keeps to the
    grammar; otherwise the model may write what it likes, and what is wrong is counted. pctr: what a
    caller would send of clicks; candidates are then listed by bid times that instead of bid.
    """

    completions: Completions
    layout: Layout
    sampling: Sampling
    max_ads: int
    is_constrained: bool = True
    pctr: CallersPctr | None = None

    async def draw(self, auction: Auction, number: int = 0) -> Draw:
        """Return the `number`-th answer to `auction`, in which the model may insert ads."""
        return await self.write(auction, self.prompt(auction), number)

    async def draw_without_ads(self, auction: Auction, number: int = 0) -> Draw:
        """Return the `number`-th answer of the same model to the same user without ads."""
        adless = with_ads(auction, ())
        return await self.write(adless, self.prompt(adless), number)

    async def write(
        self, auction: Auction, prompt: Prompt, number: int = 0, own_grammar: str | None = None
    ) -> Draw:
        """Return what the model writes to `prompt`, read with `auction`'s ads.

        number: parts draws of the same prompt. own_grammar: EBNF instead of the contract's, where
        decoding is constrained.
        """
        marked = [ad.marked for ad in auction.ads]
        max_ads = min(self.max_ads, len(marked))
        ebnf = (own_grammar or grammar(marked, max_ads)) if self.is_constrained else None
        sampling = replace(self.sampling, seed=derived_seed("draw", auction.seed, number))
        insertions = [ad.marker for ad in marked] if ebnf and not own_grammar else ()
        completion = await self.completions.complete(prompt, sampling, ebnf, insertions)
        return Draw(read(completion.text, marked, max_ads), completion)

    def prompt(
        self, auction: Auction, query: str | None = None, conversation: Sequence[Turn] = ()
    ) -> Prompt:
        """Return the contract's prompt; `query` instead of the user's where it is given."""
        return build_prompt(
            self.layout,
            self.listed(auction),
            query or auction.query.text,
            conversation,
            auction.user.profile,
        )

    def listed(self, auction: Auction) -> list[Candidate]:
        """Return the candidates in the order of the prompt."""
        return listed(auction, self.layout, self.pctr(auction) if self.pctr else None)


def with_ads(auction: Auction, ad_ids: Sequence[str]) -> Auction:
    """Return `auction` with these candidates only, in the order they have there."""
    kept = [
        (ad, bid) for ad, bid in zip(auction.ads, auction.bids, strict=True) if ad.ad_id in ad_ids
    ]
    return replace(auction, ads=tuple(ad for ad, _ in kept), bids=tuple(bid for _, bid in kept))


def without_bids(auction: Auction) -> Auction:
    """Return `auction` with HIDDEN_BID for every bid."""
    return replace(auction, bids=(HIDDEN_BID,) * len(auction.bids))


def first_prices(auction: Auction, reading: Reading) -> tuple[Price, ...]:
    """Return for each insertion its bid, per click (LLM-Auction, arXiv 2512.10551)."""
    bids = bids_by_id(auction)
    return tuple(
        Price(segment.ad_id, "click", Decimal(bids[segment.ad_id]))
        for segment in reading.insertions
        if segment.ad_id is not None
    )


def outcome(
    auction: Auction, reading: Reading, prices: tuple[Price, ...], draws: Sequence[Draw]
) -> Outcome:
    """Return the outcome that `draws`, all generations that it took, came to."""
    return Outcome(
        auction_id=auction.auction_id,
        reading=reading,
        prices=prices,
        model_calls=len(draws),
        prompt_tokens=sum(draw.completion.prompt_tokens for draw in draws),
        cached_tokens=sum(draw.completion.cached_tokens for draw in draws),
        completion_tokens=sum(draw.completion.completion_tokens for draw in draws),
    )
