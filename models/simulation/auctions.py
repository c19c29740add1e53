"""Auctions drawn from a world: which candidates a query meets, in which order, at which bids."""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass
from decimal import Decimal

from models.contract.order import listing_order
from models.contract.prompt import Candidate, Layout
from models.simulation.nouns import Ad, Auction, Query, Split
from models.simulation.randomness import derived_seed, generator
from models.simulation.world import World

_MOST_FITTING = 2
_HIGHEST_BID = 100


class WorldTooSmall(ValueError):
    """The world cannot give such auctions; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class AuctionOptions:
    """What auctions are like.

    candidates: ads in each, at least 1. fitting_odds: that of the ads that fit a query (those of
    its category) two, one or none are among the candidates; weights, 0 or more. A catalogue that
    has fewer of them, or fewer candidates, gives fewer. Queries without a category meet whichever
    ads chance brings; but where a search found ads near to them (`World.near`), half of the
    candidates are from among those.
    """

    candidates: int = 10
    fitting_odds: tuple[float, float, float] = (0.6, 0.25, 0.15)

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"An auction has at least 1 candidate, not {self.candidates}")
        if min(self.fitting_odds) < 0 or sum(self.fitting_odds) <= 0:
            raise ValueError(f"fitting_odds are 0 or more, not all 0: {self.fitting_odds}")


def draw_auctions(
    world: World, split: Split, count: int, seed: int, options: AuctionOptions | None = None
) -> list[Auction]:
    """`count` auctions on queries of `split`, the first n the same for any count.

    Queries come in a shuffled order, each once before any comes again; candidates, their order and
    bids are drawn anew for each auction. Bids are whole numbers 1 to 100, as in the source
    (LLM-Auction, arXiv 2512.10551, section 5.1). Raises WorldTooSmall where the split has no query,
    or the world fewer ads than an auction has candidates.
    """
    options = options or AuctionOptions()
    if len(world.ads) < options.candidates:
        raise WorldTooSmall(
            f"An auction has {options.candidates} candidates; the world has {len(world.ads)} ads"
        )
    queries = world.queries_of(split)
    if not queries:
        raise WorldTooSmall(f"The world has no query in the split {split}")
    users = {user.user_id: user for user in world.users}
    auctions = []
    for number in range(count):
        turn, place = divmod(number, len(queries))
        if place == 0:
            generator("turn", seed, split, turn).shuffle(queries)
        query = queries[place]
        auction_id = f"{query.query_id}-a{turn + 1}"
        chance = generator("auction", seed, auction_id)
        near = set(world.near.get(query.query_id, ()))
        ads = _candidates(world.ads, query, near, options, chance)
        bids = tuple(chance.randint(1, _HIGHEST_BID) for _ in ads)
        own_seed = derived_seed("answer", seed, auction_id)
        auctions.append(Auction(auction_id, users[query.user_id], query, ads, bids, own_seed))
    return auctions


def listed(
    auction: Auction, layout: Layout, pctrs: Sequence[float] | None = None
) -> list[Candidate]:
    """The candidates as the prompt lists them, each answer's order drawn anew by its bids.

    pctrs: what is known of each candidate's chance of a click, over 0, to rank by beside bids.
    """
    candidates = [
        Candidate(ad.ad_id, ad.title, ad.category, ad.description, Decimal(bid))
        for ad, bid in zip(auction.ads, auction.bids, strict=True)
    ]
    ids, bids = [ad.ad_id for ad in candidates], [ad.bid for ad in candidates]
    return [candidates[i] for i in listing_order(layout, ids, bids, b"%d" % auction.seed, pctrs)]


def fitting(auction: Auction) -> tuple[Ad, ...]:
    """The candidates that serve the query, as far as that is known."""
    return tuple(ad for ad in auction.ads if fits(ad, auction.query))


def fits(ad: Ad, query: Query) -> bool:
    """Whether `ad` serves `query`, as far as that is known."""
    return query.category is not None and ad.category == query.category


def _candidates(
    ads: Sequence[Ad],
    query: Query,
    near: Set[str],
    options: AuctionOptions,
    chance: random.Random,
) -> tuple[Ad, ...]:
    """The candidates of `query`, in a random order."""
    if near:
        likely = [ad for ad in ads if ad.ad_id in near]
        wanted = (options.candidates + 1) // 2
    else:
        likely = [ad for ad in ads if fits(ad, query)]
        wanted = chance.choices((_MOST_FITTING, 1, 0), options.fitting_odds)[0]
    taken = {ad.ad_id for ad in likely}
    others = [ad for ad in ads if ad.ad_id not in taken]
    wanted = min(wanted, len(likely), options.candidates)
    # where others are too few, more of the likely ones make up for them
    wanted = max(wanted, options.candidates - len(others))
    chosen = chance.sample(likely, wanted) + chance.sample(others, options.candidates - wanted)
    chance.shuffle(chosen)
    return tuple(chosen)
