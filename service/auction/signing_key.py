"""Keys that sign click tokens and receipts, by id, so that several are valid at once.

Pure: `service/signing.py` reads them from their file.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field

_KEY_ID = re.compile(r"[a-z0-9]{1,8}")
_SECRET_BYTES = 16


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`key_id`: 1 to 8 of `[a-z0-9]`, stands in what it signed. `secret`: 16 bytes or more."""

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError where a field is not as above."""
        if not _KEY_ID.fullmatch(self.key_id):
            raise ValueError("a key's id must be 1 to 8 of a to z and 0 to 9")
        if len(self.secret) < _SECRET_BYTES:
            raise ValueError(f"a key's secret must have {_SECRET_BYTES} bytes or more")

    def mac(self, purpose: str, message: bytes) -> bytes:
        """The 32 bytes that sign `message`; what is signed for one purpose is worth nothing for
        another."""
        return hmac.digest(self.secret, purpose.encode() + b"\0" + message, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """`current` signs; `all`, the current one included, are believed."""

    current: SigningKey
    all: tuple[SigningKey, ...]

    def find(self, key_id: str) -> SigningKey | None:
        """The valid key of this id, or None."""
        return next((key for key in self.all if key.key_id == key_id), None)
