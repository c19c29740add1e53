"""Random numbers that follow from an auction's seed and what they are for, and from nothing else.

So a draw does not change when bids, the order of candidates or other draws do.
"""

import hashlib
import math


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return an int in 0..2^63 - 1 that looks random."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def uniform(seed: int, *purpose: str | int) -> float:
    """Return a number over 0 and under 1."""
    # 52 bits, which a float holds exactly with the half: never 0, never 1.
    return ((derived_seed(seed, *purpose) >> 11) + 0.5) / 2**52


def gumbel(seed: int, *purpose: str | int) -> float:
    """Return a number of the standard Gumbel distribution."""
    return -math.log(-math.log(uniform(seed, *purpose)))
