"""What every mechanism is: an auction in, an answer with prices out."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from models.contract.markers import Reading
from models.simulation.nouns import Auction


@dataclass(frozen=True, slots=True)
class Price:
    """What an inserted ad's advertiser owes. amount: units of currency, per `event`, 0 or more."""

    ad_id: str
    event: Literal["click", "impression"]
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mechanism made of an auction.

    reading: the answer with its insertions and faults. prices: one for each insertion, in order.
    model_calls: generations that it took, 0 or more. prompt_tokens, completion_tokens: of all calls
    together; `cached_tokens` of the prompts' came from the engine's prefix cache.
    """

    auction_id: str
    reading: Reading
    prices: tuple[Price, ...]
    model_calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Mechanism(Protocol):
    """Decides which ads stand in the answer, where, and at what price."""

    @property
    def name(self) -> str:
        """As the command line and the report call it."""
        ...

    async def answer(self, auction: Auction) -> Outcome:
        """One answer; the same auction (seed included) gives the same one, as far as the engine
        allows."""
        ...
