"""placeholder: types first"""
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Literal

Role = Literal["system", "user", "assistant"]


class Layout(StrEnum):
    """Where the bids stand."""

    INLINE = "inline"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Candidate:
    ad_id: str
    title: str
    category: str
    description: str
    bid: Decimal


@dataclass(frozen=True, slots=True)
class Turn:
    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Profile:
    info: str = ""
    interests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text that is tokenised by itself. `recurs`: worth caching its tokens."""

    text: str
    recurs: bool


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages for the model's chat template; `contract` names version and layout."""

    contract: str
    messages: tuple[Message, ...]
