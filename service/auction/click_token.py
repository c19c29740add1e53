"""Click tokens: the terms of one charge, signed, in the address that a user follows.

Pure. A token is base64url of these bytes, big-endian, without padding:

    1   version, 1
    1   length of the key's id, then the key's id
    16  the response's id
    1   position
    6   price in micros
    3   currency
    5   issued at, epoch seconds
    5   expires at, epoch seconds
    …   the ad's id
    16  HMAC-SHA256 of all before it, cut to 16 bytes

It holds nothing about the user, and no landing page: a redirect goes where the catalogue says.
Whether it has expired is for the caller to decide.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from typing import Final, Literal

from service.auction.signing_key import SigningKey, SigningKeys

MAX_CHARACTERS: Final = 200
"""No token is longer: the longest ids of ads and keys fit."""

_PURPOSE = "click"
_VERSION = b"\x01"
_MAC_BYTES = 16


class ForgedToken(Exception):
    """No valid key signed this."""


@dataclass(frozen=True, slots=True)
class ClickTerms:
    """What a click on one ad of one answer costs, and until when.

    response_id: `resp_` and 32 hex digits. position: the ad's place among the answer's ads, from
    1 (to 255). price_micros: below 2**48. currency: ISO 4217. issued_at, expires_at: epoch seconds.
    """

    response_id: str
    ad_id: str
    position: int
    event: Literal["click"]
    price_micros: int
    currency: str
    issued_at: int
    expires_at: int


def sign(terms: ClickTerms, key: SigningKey) -> str:
    """The token of `terms`: URL-safe, 71 characters and 4 for every 3 of the ids of key and ad."""
    key_id = key.key_id.encode()
    signed = b"".join(
        (
            _VERSION,
            bytes((len(key_id),)) + key_id,
            bytes.fromhex(terms.response_id.removeprefix("resp_")),
            terms.position.to_bytes(1, "big"),
            terms.price_micros.to_bytes(6, "big"),
            terms.currency.encode(),
            terms.issued_at.to_bytes(5, "big"),
            terms.expires_at.to_bytes(5, "big"),
            terms.ad_id.encode(),
        )
    )
    return _text(signed + key.mac(_PURPOSE, signed)[:_MAC_BYTES])


def read(token: str, keys: SigningKeys) -> ClickTerms:
    """The terms that one of `keys` has signed. Raises ForgedToken for everything else."""
    raw = _bytes(token)
    signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if signed[:1] != _VERSION or len(signed) < 2:
        raise ForgedToken
    key_end = 2 + signed[1]
    key = keys.find(signed[2:key_end].decode("latin-1"))
    if key is None or not hmac.compare_digest(key.mac(_PURPOSE, signed)[:_MAC_BYTES], mac):
        raise ForgedToken
    fields = signed[key_end:]
    return ClickTerms(
        response_id=f"resp_{fields[:16].hex()}",
        position=fields[16],
        event="click",
        price_micros=int.from_bytes(fields[17:23], "big"),
        currency=fields[23:26].decode(),
        issued_at=int.from_bytes(fields[26:31], "big"),
        expires_at=int.from_bytes(fields[31:36], "big"),
        ad_id=fields[36:].decode(),
    )


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(token: str) -> bytes:
    """What `token` spells. Raises ForgedToken where it is not spelt as `sign` does.

    Base64 can be spelt in several ways; only one is taken, so that a token has one address.
    """
    if len(token) > MAX_CHARACTERS:
        raise ForgedToken
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (UnicodeEncodeError, NotBase64) as malformed:
        raise ForgedToken from malformed
    if _text(raw) != token:
        raise ForgedToken
    return raw
