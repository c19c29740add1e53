"""The nouns of a simulated market. Pure: no I/O, no clock, no randomness."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from models.contract.markers import MarkedAd, Reading
from models.contract.prompt import Profile


class Split(StrEnum):
    """A user is in one of two parts, with all queries: in one world, what is trained on is not
    tested on."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who asks. `profile` is what the model may know of them."""

    user_id: str
    profile: Profile
    split: Split


@dataclass(frozen=True, slots=True)
class Query:
    """One question of a user.

    category: that of the ads which serve it; None where no ad does, or where nobody knows (queries
    from outside).
    """

    query_id: str
    user_id: str
    text: str
    category: str | None


@dataclass(frozen=True, slots=True)
class Ad:
    """An ad as the model reads it; texts are valid fields of an ad (`models.contract`)."""

    ad_id: str
    title: str
    category: str
    description: str

    @property
    def marked(self) -> MarkedAd:
        """As it may stand in an answer."""
        return MarkedAd(self.ad_id, self.title)

    @property
    def offer(self) -> str:
        """What it is about in one line, as texts are compared with it."""
        return f"{self.category}: {self.description or self.title}"


@dataclass(frozen=True, slots=True)
class Auction:
    """One answer to be made: who asks what, and who bids how much for a click.

    ads, bids: of the same length; candidates, and each one's bid in whole units of currency, over
    0. seed: the order of the prompt's list, the answer and the clicks are drawn from it.
    """

    auction_id: str
    user: User
    query: Query
    ads: tuple[Ad, ...]
    bids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """An answer that a user reads. `reading`: its text with the ads found in it."""

    auction: Auction
    reading: Reading


@dataclass(frozen=True, slots=True)
class Click:
    """What a user makes of one ad in an answer.

    probability: of a click, 0 to 1. clicked: as drawn from it, with the auction's seed. reason: in
    a few words, for people.
    """

    ad_id: str
    probability: float
    clicked: bool
    reason: str


class SimulatedUsers(Protocol):
    """Reads answers and clicks, or does not."""

    async def clicks(self, exposures: Sequence[Exposure]) -> list[tuple[Click, ...]]:
        """For each answer, in order, a Click for each of its insertions, in order."""
        ...
