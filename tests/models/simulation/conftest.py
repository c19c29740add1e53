"""The demo catalogue, the sentence encoder, and answers about it."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from models.contract.markers import read
from models.contract.prompt import Profile
from models.simulation.embeddings import MiniLmEncoder
from models.simulation.nouns import Ad, Auction, Exposure, Query, Split, User
from models.simulation.outside import read_ads

MakeExposure = Callable[..., Exposure]


@pytest.fixture(scope="session")
def catalogue_path() -> Path:
    return Path(str(files("service.store").joinpath("demo_ads.jsonl")))


@pytest.fixture(scope="session")
def ads(catalogue_path: Path) -> tuple[Ad, ...]:
    return read_ads(catalogue_path).good


@pytest.fixture(scope="session")
def encoder() -> MiniLmEncoder:
    return MiniLmEncoder()


@pytest.fixture(scope="session")
def expose(ads: Sequence[Ad]) -> MakeExposure:
    """Makes an answer that `{Ad-1}` and the like stand in for markers of."""
    by_id = {ad.ad_id: ad for ad in ads}

    def exposure(
        text: str,
        query: str = "My back hurts after a day at my desk. What can I do?",
        profile: Profile | None = None,
        seed: int = 1,
    ) -> Exposure:
        shown = tuple(ad for ad in by_id.values() if f"{{{ad.ad_id}}}" in text)
        for ad in shown:
            text = text.replace(f"{{{ad.ad_id}}}", ad.marked.marker)
        auction = Auction(
            auction_id=f"a{seed}",
            user=User("u1", profile or Profile(), Split.TEST),
            query=Query("q1", "u1", query, None),
            ads=shown,
            bids=(50,) * len(shown),
            seed=seed,
        )
        return Exposure(auction, read(text, [ad.marked for ad in shown], max_ads=9))

    return exposure
