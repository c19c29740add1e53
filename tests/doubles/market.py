"""A small market without language models: auctions, readers, embeddings, planted mechanisms."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from models.contract.markers import read
from models.contract.prompt import Profile
from models.evaluation.mechanism import Outcome, Price
from models.evaluation.policy import first_prices
from models.simulation.nouns import Ad, Auction, Click, Exposure, Query, Split, User
from models.simulation.objective import bids_by_id
from models.simulation.randomness import uniform

CATEGORIES = ("tents", "shoes", "tea", "lamps", "bikes", "pens", "cameras", "soap")
MADE_UP_OF = "The answer begins here. "
"""How every planted answer starts."""


def an_auction(
    number: int = 0, bids: Sequence[int] = (), category: str | None = "tents"
) -> Auction:
    """An auction of one ad a category; bids are random where none are given."""
    ads = tuple(
        Ad(f"Ad-{index}", f"Best {name}", name, f"All about {name}.")
        for index, name in enumerate(CATEGORIES)
    )
    chance = np.random.default_rng(number)
    drawn = tuple(int(bid) for bid in chance.integers(1, 101, len(ads)))
    user = User(f"u{number}", Profile("Likes to camp"), Split.TEST)
    query = Query(f"q{number}", user.user_id, f"What about {category}, please?", category)
    return Auction(f"a{number}", user, query, ads, tuple(bids) or drawn, seed=number)


class Readers:
    """Click on an ad that fits with 0.5, on another one with 0.1."""

    async def clicks(self, exposures: Sequence[Exposure]) -> list[tuple[Click, ...]]:
        return [self._clicks(exposure) for exposure in exposures]

    def _clicks(self, exposure: Exposure) -> tuple[Click, ...]:
        auction = exposure.auction
        categories = {ad.ad_id: ad.category for ad in auction.ads}
        clicks = []
        for segment in exposure.reading.insertions:
            assert segment.ad_id is not None
            fits = categories[segment.ad_id] == auction.query.category
            probability = 0.5 if fits else 0.1
            luck = uniform("click", auction.seed, segment.ad_id)
            clicks.append(Click(segment.ad_id, probability, luck < probability, "as told"))
        return tuple(clicks)


class BagOfWords:
    """Texts are alike that share words."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace("?", "").replace(".", "").replace(",", "").split():
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vectors / np.maximum(1e-9, np.linalg.norm(vectors, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Planted:
    """Shows each ad with the chance that `exposure` gives it, for its bid and place (from 0)."""

    name: str
    exposure: Callable[[int, int], float]
    price: Callable[[int], Decimal] = Decimal

    async def answer(self, auction: Auction) -> Outcome:
        shown = [
            ad.marked.marker
            for place, (ad, bid) in enumerate(zip(auction.ads, auction.bids, strict=True))
            if uniform(auction.seed, auction.auction_id, ad.ad_id) < self.exposure(bid, place)
        ]
        text = MADE_UP_OF + "".join(f"There is {marker} too. " for marker in shown)
        reading = read(text, [ad.marked for ad in auction.ads], len(auction.ads))
        bids = bids_by_id(auction)
        prices = tuple(
            Price(price.ad_id, "click", self.price(bids[price.ad_id]))
            for price in first_prices(auction, reading)
        )
        return Outcome(auction.auction_id, reading, prices, 1, 100, 0, 20)
