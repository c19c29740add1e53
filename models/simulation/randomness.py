"""Random numbers that follow from names: the same names give the same numbers, on any machine."""

import hashlib
import random

_SEPARATOR = "\x1f"
_SEED_BITS = 31


def generator(*names: object) -> random.Random:
    """A generator of its own for what `names` (their `str`) stand for."""
    return random.Random(_digest(names))


def derived_seed(*names: object) -> int:
    """A seed, 0 to 2**31 - 1, for what `names` stand for."""
    return _digest(names) & ((1 << _SEED_BITS) - 1)


def uniform(*names: object) -> float:
    """A number from 0 up to, but not including, 1."""
    return (_digest(names) >> 11) / (1 << 53)


def _digest(names: tuple[object, ...]) -> int:
    text = _SEPARATOR.join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
