"""In which order candidates stand in the prompt: bids are what a place there is bought with.

A language model of any size reads an order, while a small one hardly compares numbers (135M
parameters told the higher of two bids by chance after 3,000 examples). So where the bids stand
beside the ads, the ads are listed by bid, the highest first, each multiplied by a factor of its
own that is drawn from `salt`:

    place by  bid_i · pctr_i · exp(g_i / SHARPNESS),   g_i standard Gumbel, keyed hash of its id

Over salts that is a draw without replacement by odds (bid · pctr)^SHARPNESS (Plackett and Luce):
chances of standing before a rival rise with the bid, without a step, and are even at equal bids.
pctr is the chance of a click, where the caller knows one, since bids are for clicks; else 1. What
callers send first or last changes nothing. While a salt lasts, the same bids give the same order,
so a prefix cache serves a recurring list.

Pure: the salt is the caller's.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from models.contract.prompt import Layout

SHARPNESS: Final = 8.0
"""Of two bids the higher stands first with odds (higher / lower)^SHARPNESS: 2 to 1 at 9 % more."""


def listing_order(
    layout: Layout,
    ad_ids: Sequence[str],
    bids: Sequence[Decimal | float],
    salt: bytes,
    pctrs: Sequence[float] | None = None,
) -> list[int]:
    """Return the indexes of the ads in the order that they are listed in.

    bids, pctrs: one for each ad, over 0; only ratios of the pctrs matter. salt: 1 to 64 bytes,
    secret where money is at stake. SPLIT lists ads in an order that bids do not move, or a list
    would not recur when bids change.
    """
    if layout is Layout.SPLIT:
        return sorted(range(len(ad_ids)), key=lambda i: _gumbel(ad_ids[i], salt))
    scores = [
        -SHARPNESS * math.log(bid) - _gumbel(ad_id, salt)
        for ad_id, bid in zip(ad_ids, bids, strict=True)
    ]
    if pctrs is not None:
        scores = [
            score - SHARPNESS * math.log(pctr) for score, pctr in zip(scores, pctrs, strict=True)
        ]
    return sorted(range(len(ad_ids)), key=scores.__getitem__)


@lru_cache(maxsize=65_536)
def _gumbel(ad_id: str, salt: bytes) -> float:
    """A draw from the standard Gumbel distribution, always the same for the same arguments."""
    digest = blake2b(ad_id.encode(), key=salt, digest_size=8).digest()
    uniform = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # exact, so never 0 or 1
    return -math.log(-math.log(uniform))
