"""The ad: what an advertiser enters, checked once, so that nothing later needs to doubt it.

Text fields are data in a prompt. What could be read as something else there is refused: control
characters, line breaks, `@[` (the middle of a marker) and chat-template tokens.

Money is a decimal amount in JSON, given as a number or as plain decimal text and returned as text;
in Python it is integer micros.
"""

import re
import unicodedata
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from models.contract.markers import AD_ID_PATTERN, MarkedAd, check_title
from models.contract.neutral import TEMPLATE_TOKEN, stream_safe
from service.auction.money import DECIMALS, MAX_BUDGET_UNITS, MAX_UNITS, to_micros, to_text

_PLAIN_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LANGUAGE: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}$"


def _refuse(message: str) -> PydanticCustomError:
    # the message is data: braces in it are not to be filled in
    return PydanticCustomError("ad_field", "{message}", {"message": message})


def _title(title: str) -> str:
    try:
        return check_title(title)
    except ValueError as wrong:
        raise _refuse(str(wrong)) from wrong


def _text(text: str) -> str:
    text = unicodedata.normalize("NFC", stream_safe(text.strip()))
    for position, char in enumerate(text, 1):
        if unicodedata.category(char) in _REFUSED_CATEGORIES:
            raise _refuse(
                f"character {position} is U+{ord(char):04X}: no control characters and no line"
                " breaks are allowed"
            )
    if (at := text.find("@[")) >= 0:
        raise _refuse(f"@[ at character {at + 1} marks ads in answers and is not allowed")
    if token := TEMPLATE_TOKEN.search(text):
        raise _refuse(f"a chat-template token begins at character {token.start() + 1}: none may")
    return text


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        has_port_in_range = parts.port != 0
    except ValueError as wrong:
        raise _refuse(f"must be an http or https address ({wrong})") from wrong
    if not _URL.fullmatch(url):
        raise _refuse("must hold only the characters of RFC 3986; encode others (%20, xn--…)")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port_in_range:
        raise _refuse("must be a whole address that begins with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise _refuse("must hold no user name or password")
    return url


def _micros(amount: Any, max_units: int) -> int:
    if isinstance(amount, str) and _PLAIN_DECIMAL.fullmatch(amount):
        decimal = Decimal(amount)
    elif isinstance(amount, int | float | Decimal) and not isinstance(amount, bool):
        decimal = Decimal(str(amount))
    else:
        raise _refuse("must be a number, or a decimal written like 12.5")
    try:
        return to_micros(decimal, max_units)
    except ValueError as wrong:
        raise _refuse(str(wrong)) from wrong


def _micros_up_to(max_units: int) -> tuple[BeforeValidator, PlainSerializer, WithJsonSchema, Any]:
    digits = len(str(max_units))
    text = {"type": "string", "pattern": rf"^[0-9]{{1,{digits}}}(\.[0-9]{{1,{DECIMALS}}})?$"}
    number = {"type": "number", "minimum": 0, "maximum": max_units}
    return (
        BeforeValidator(lambda amount: _micros(amount, max_units)),
        PlainSerializer(to_text, return_type=str),
        WithJsonSchema({"anyOf": [number, text], "examples": ["12.5"]}, mode="validation"),
        WithJsonSchema({**text, "examples": ["12.5"]}, mode="serialization"),
    )


Price = Annotated[int, *_micros_up_to(MAX_UNITS)]
"""Micros in Python, a decimal of up to 1,000,000 units in JSON."""

Allowance = Annotated[int, *_micros_up_to(MAX_BUDGET_UNITS)]
"""Micros in Python, a decimal of up to 1,000,000,000 units in JSON."""

Identifier = Annotated[str, Field(pattern=rf"^{AD_ID_PATTERN}$", examples=["Ad-1001"])]
# lengths are put after it, so that they hold for the normalised text that is kept
Text = Annotated[str, AfterValidator(_text)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
Language = Annotated[str, Field(pattern=_LANGUAGE, examples=["en", "pt-BR"])]
Topic = Annotated[Text, Field(min_length=1, max_length=64)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Frozen):
    """The most that may be charged, in all and per day of the deployment's time zone.

    Without one there is no limit.
    """

    total_micros: Allowance | None = Field(default=None, alias="total")
    daily_micros: Allowance | None = Field(default=None, alias="daily")


class _Identified(_Frozen):
    ad_id: Identifier


class AdFields(_Frozen):
    """All of an ad but its id."""

    title: Annotated[str, Field(min_length=1, max_length=240), AfterValidator(_title)] = Field(
        description="1 to 120 characters; stands in answers exactly so",
        examples=["Trailhead Waterproof Boots"],
    )
    description: Annotated[Text, Field(max_length=300)] = ""
    category: Annotated[Text, Field(min_length=1, max_length=64)] = Field(examples=["hiking boots"])
    landing_url: Url = Field(examples=["https://www.trailhead-boots.example/"])
    advertiser_id: Identifier = Field(examples=["adv-trailhead"])
    status: Literal["active", "paused"] = "active"
    image_url: Url | None = None
    languages: tuple[Language, ...] = Field(default=(), max_length=20)
    blocked_topics: tuple[Topic, ...] = Field(
        default=(),
        max_length=50,
        description="Queries that hold one of these words never get the ad",
    )
    reserve_micros: Price = Field(
        default=0, alias="reserve", description="Bids under this amount per click are not taken"
    )
    budget: Budget = Budget()


class Ad(AdFields, _Identified):
    """An ad as the catalogue keeps it."""

    @cached_property
    def marked(self) -> MarkedAd:
        """As it may stand in an answer; made once, as a request needs hundreds of them."""
        return MarkedAd(self.ad_id, self.title)

    @classmethod
    def identified(cls, ad_id: str, fields: AdFields) -> Self:
        """`fields`, already checked, under `ad_id`."""
        return cls.model_validate({**fields.model_dump(by_alias=True), "ad_id": ad_id})
