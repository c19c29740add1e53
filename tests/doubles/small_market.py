"""A market of three ads, and an encoder that needs no weights."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.contract.prompt import Profile
from models.simulation.nouns import Ad, Auction, Query, Split, User
from models.simulation.randomness import generator

ADS = (
    Ad("Ad-1", "Mossrunner 3", "running shoes", "Cushioned shoes for long runs, wide fits."),
    Ad("Ad-2", "Loper @ Lane", "running shoes", "Light shoes for race day."),
    Ad("Ad-3", "Kestrel Tent", "camping tents", "A roomy tent for families."),
)


def auction(
    query: str = "What do beginners run in?",
    category: str | None = "running shoes",
    ads: Sequence[Ad] = ADS,
    bids: Sequence[int] = (40, 90, 70),
    user: str = "u1",
    name: str = "a1",
) -> Auction:
    return Auction(
        name,
        User(user, Profile("A nurse in Leeds.", ("jogging",)), Split.TRAIN),
        Query(f"q-{name}", user, query, category),
        tuple(ads),
        tuple(bids),
        seed=7,
    )


class FakeEncoder:
    """Vectors that follow from the text alone, as different as chance makes them."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [[generator(text, i).gauss(0, 1) for i in range(8)] for text in texts]
        found = np.array(rows, np.float32).reshape(len(texts), 8)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
