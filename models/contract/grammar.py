"""The marker language as EBNF, in xgrammar's dialect: what an engine lets the model write.

Whatever it accepts, `markers.read` reads without a fault, and the other way round, but for the
same ad twice, which a grammar of this size cannot forbid. Bids are not in it, and neither is the
order of the candidates, so an engine that caches compiled grammars meets the same one again.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

from models.contract.markers import MarkedAd

# A plain "@" stands after a character of the first class and before one of the second; after "@b"
# another may follow. Right-linear on purpose: with a repetition inside a repetition, which says the
# same more briefly, xgrammar 0.2 takes 80 ms for a token mask instead of 6 µs.
_TEXT = """\
text ::= "" | [^@A-Za-z0-9._%+-] text | [A-Za-z0-9._%+-] word
word ::= "" | [^@A-Za-z0-9._%+-] text | [A-Za-z0-9._%+-] word | "@" [A-Za-z0-9] word
"""

# Where no ad may stand, an "@" is as good as any other character, unless it begins a tail.
_TEXT_WITHOUT_ADS = """\
root ::= "" | [^@] root | "@" at
at ::= "" | [^@[] root | "@" at
"""


def grammar(ads: Sequence[MarkedAd], max_ads: int) -> str:
    """Return the EBNF of answers with at most `max_ads` markers of `ads`; its start is `root`.

    ads: ids are unique and no title is ambiguous (`markers.ambiguous_titles`). With none, or
    with `max_ads` of 0, an answer can hold anything but `@[`, and so no marker.
    """
    if not ads or max_ads == 0:
        return _TEXT_WITHOUT_ADS
    markers = " | ".join(_literal(ad.marker) for ad in sorted(ads, key=attrgetter("ad_id")))
    return f"root ::= text (marker text){{0,{max_ads}}}\n{_TEXT}marker ::= {markers}\n"


@lru_cache(maxsize=16_384)
def _literal(marker: str) -> str:
    """`marker` as a string of the dialect, whose escapes are those of JSON."""
    return json.dumps(marker, ensure_ascii=False)
