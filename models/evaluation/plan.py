"""Which answers a run takes. Pure: the same auctions and settings give the same plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.evaluation.config import RunConfig, Sizes, Study
from models.simulation.auctions import fitting
from models.simulation.nouns import Auction
from models.simulation.randomness import derived_seed

SWEPT_BIDS: Final = (1, *range(10, 101, 10))
"""The published protocol's (LLM-Auction, arXiv 2512.10551, section 5)."""
HIGHEST_BID: Final = 100
DRAWS: Final = "draws"
"""Stands for a mechanism where the draws of the policy itself are recorded."""
_KNOWS_NO_BIDS: Final = frozenset({"no-ads", "aligned-no-ads"})
_SAMPLED: Final = frozenset({"mosaic", "best-of-k"})


@dataclass(frozen=True, slots=True)
class Sweep:
    """Whose bid was set to what."""

    ad_id: str
    bid: int


@dataclass(frozen=True, slots=True)
class Task:
    """One answer to take. row: answers with the same one differ only in what the study varies."""

    study: Study
    mechanism: str
    auction: Auction
    row: str
    sweep: Sweep | None = None

    @property
    def key(self) -> str:
        """Unique in a run."""
        return f"{self.study}/{self.mechanism}/{self.auction.auction_id}"


def plan(config: RunConfig, auctions: Sequence[Auction]) -> list[Task]:
    """Return the tasks in the order to take them: what shares prompts stands together.

    auctions: as many as `auctions_needed`, of held-out users; the studies take them from the start.
    """
    varied = [name for name in config.mechanisms if name not in _KNOWS_NO_BIDS]
    sizes = config.sizes
    tasks = list(_efficiency(config, auctions[: sizes.auctions]))
    by_fit = sorted(auctions, key=lambda auction: not fitting(auction))
    for auction in by_fit[: sizes.sweep_queries]:
        for number in range(sizes.sweep_repeats):
            tasks += _sweep(Study.BID_RESPONSE, varied, repeated(auction, number), SWEPT_BIDS)
    cheap = [name for name in varied if sizes.is_sampling_cheap or name not in _SAMPLED]
    fine_bids = range(1, HIGHEST_BID + 1, sizes.curve_step)
    for auction in sorted(auctions, key=_unlike_a_contest)[:1]:
        for number in range(sizes.curve_repeats):
            tasks += _sweep(Study.CONTINUITY, cheap, repeated(auction, number), fine_bids)
    for auction in auctions[: sizes.order_auctions]:
        tasks += _orders(cheap, auction, sizes.order_rotations)
    return [task for task in tasks if task.study in config.studies]


def auctions_needed(sizes: Sizes) -> int:
    """Return how many auctions a run of these sizes draws."""
    return max(
        sizes.auctions, sizes.sweep_queries, sizes.order_auctions, min(1, sizes.curve_repeats)
    )


def repeated(auction: Auction, number: int) -> Auction:
    """Return `auction` with the seed of its `number`-th repeat."""
    seed = derived_seed("repeat", auction.seed, number)
    return replace(auction, auction_id=f"{auction.auction_id}.{number}", seed=seed)


def with_bid(auction: Auction, sweep: Sweep) -> Auction:
    """Return `auction` with one bid set, and its bidder last: the prompt's list is in an order of
    its own, and whatever else looks at places finds this ad at the same one in the whole sweep."""
    others = [
        (ad, bid)
        for ad, bid in zip(auction.ads, auction.bids, strict=True)
        if ad.ad_id != sweep.ad_id
    ]
    own = next(ad for ad in auction.ads if ad.ad_id == sweep.ad_id)
    return replace(
        auction,
        auction_id=f"{auction.auction_id}/bid-{sweep.bid}",
        ads=(*(ad for ad, _ in others), own),
        bids=(*(bid for _, bid in others), sweep.bid),
    )


def rotated(auction: Auction, places: int) -> Auction:
    """Return `auction` with every candidate `places` further down, the last ones first."""
    places %= max(1, len(auction.ads))
    return replace(
        auction,
        auction_id=f"{auction.auction_id}/down-{places}",
        ads=auction.ads[-places:] + auction.ads[:-places] if places else auction.ads,
        bids=auction.bids[-places:] + auction.bids[:-places] if places else auction.bids,
    )


def _efficiency(config: RunConfig, auctions: Sequence[Auction]) -> Iterator[Task]:
    for auction in auctions:
        for name in config.mechanisms:
            yield Task(Study.EFFICIENCY, name, auction, auction.auction_id)
        yield Task(Study.OPTIMUM, DRAWS, auction, auction.auction_id)


def _unlike_a_contest(auction: Auction) -> tuple[int, int]:
    """Least where the bid of the ad that is swept decides most: other ads fit the query too, and
    the highest bid for one of those leaves as much room above as below."""
    bids = dict(zip(auction.ads, auction.bids, strict=True))
    rivals = [bids[ad] for ad in fitting(auction)[1:]]
    return -len(rivals), abs(max(rivals, default=0) - HIGHEST_BID // 2)


def _sweep(
    study: Study, names: Sequence[str], auction: Auction, bids: Sequence[int]
) -> Iterator[Task]:
    ad_id = (fitting(auction) or auction.ads)[0].ad_id
    for name in names:
        for bid in bids:
            sweep = Sweep(ad_id, bid)
            yield Task(study, name, with_bid(auction, sweep), auction.auction_id, sweep)


def _orders(names: Sequence[str], auction: Auction, rotations: int) -> Iterator[Task]:
    count = len(auction.ads)
    # Evenly spaced, so that every ad stands early as often as late.
    places = sorted({round(number * count / rotations) % count for number in range(rotations)})
    for name in names:
        for place in places:
            yield Task(Study.ORDER, name, rotated(auction, place), auction.auction_id)
