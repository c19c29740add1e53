"""Which users get answers without ads, so that what ads do to a product can be measured.

Pure: a user's place is a keyed hash, so it stays the same from request to request and process to
process, and callers without the salt cannot tell who is held out.
"""

import hashlib

_PLACES = 1 << 64


def is_held_out(user_id: str | None, share: float, salt: bytes) -> bool:
    """Whether this user is among the `share` (0..1) of users who get no ads.

    A growing share keeps everyone who was held out before. Requests without a user are never held
    out: they belong to nobody who could be compared. salt: up to 64 bytes; another one draws anew.
    """
    if user_id is None:
        return False
    place = hashlib.blake2b(user_id.encode(), digest_size=8, key=salt, person=b"holdout").digest()
    return int.from_bytes(place, "big") < int(share * _PLACES)
