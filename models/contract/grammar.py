"""The marker language as EBNF, in xgrammar's dialect: what an engine lets the model write.

Whatever it accepts, `markers.read` reads without a fault, and the other way round. Only of lists
and limits too large for it (`forbids_repeats`) does it accept the same ad twice. Bids are not in
it, and neither is the order of the candidates, so an engine that caches compiled grammars meets
the same one again.

That no ad stands twice has no small grammar that follows the ads one by one: what may come next
depends on all that came before. So ads get colours, and an answer under a colouring holds no
colour twice; what may come next depends on few colours. The answers of one colouring never repeat
an ad, and there are enough colourings that any allowed ads differ in colour in one of them. The
parser follows all of them at once.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from operator import attrgetter
from typing import Final

from models.contract.markers import MarkedAd

# A plain "@" stands after a character of the first class and before one of the second; after "@b"
# another may follow. Right-linear on purpose: with a repetition inside a repetition, which says the
# same more briefly, xgrammar 0.2 takes 20 ms for a token mask instead of 2 µs. It compiles quickly
# a rule that begins with a character and goes on with itself: it knows most tokens at a look.
_TEXT: Final = """\
text ::= "" | [^@] text | [A-Za-z0-9._%+-] at
at ::= "@" [A-Za-z0-9] text | "@" [A-Za-z0-9] at
"""

# A text and the "@" of a marker: so what tokens like " @" begin is known when it is compiled. The
# assertion in brackets settles those that go on after the "@"; it changes no answer.
_INTO: Final = """\
into ::= "@" | [^@] into | [A-Za-z0-9._%+-] midst (=any)
midst ::= "@" [A-Za-z0-9] into | "@" [A-Za-z0-9] midst
"""

# Where no ad may stand, an "@" is as good as any other character, unless it begins a tail.
_TEXT_WITHOUT_ADS: Final = """\
root ::= "" | [^@] root | "@" at
at ::= "" | [^@[] root | "@" at
"""

_MOST_REFERENCES: Final = 8000
"""How large the rules for where ads stand may be. A reference takes about 10 µs to compile."""


def grammar(ads: Sequence[MarkedAd], max_ads: int) -> str:
    """Return the EBNF of answers with at most `max_ads` markers of `ads`; its start is `root`.

    ads: ids are unique and no title is ambiguous (`markers.ambiguous_titles`). With none, or
    with `max_ads` of 0, an answer can hold anything but `@[`, and so no marker.
    """
    if not ads or max_ads == 0:
        return _TEXT_WITHOUT_ADS
    in_order = sorted(ads, key=attrgetter("ad_id"))
    most = min(max_ads, len(ads))
    if most > 1 and (places := _places(len(ads), most)):
        # A rule that refers to another, as to `end`, is compiled once for all that refer to it.
        return places + "".join(
            f"ad{number} ::= {_literal(ad.marker[1:-1])} end\n"
            for number, ad in enumerate(in_order)
        )
    markers = " | ".join(_literal(ad.marker) for ad in in_order)
    return f"root ::= text (marker text){{0,{most}}}\n{_TEXT}marker ::= {markers}\n"


def forbids_repeats(ad_count: int, max_ads: int) -> bool:
    """Whether the grammar of so many ads accepts no answer that holds the same ad twice.

    It does of up to 200 ads where at most 3 may stand, of up to 49 with 4, of up to 10 with any.
    """
    most = min(max_ads, ad_count)
    return most < 2 or _places(ad_count, most) is not None


@lru_cache(maxsize=16_384)
def _literal(marker: str) -> str:
    """`marker` as a string of the dialect, whose escapes are those of JSON."""
    return json.dumps(marker, ensure_ascii=False)


@lru_cache(maxsize=256)
def _places(ad_count: int, most: int) -> str | None:
    """Return the rules for where ads stand, by their numbers: all but those of the ads.

    None where they would be too many.
    """
    colourings = _colourings(ad_count, most)
    if _reference_count(colourings, most) > _MOST_REFERENCES:
        return None
    rules = [
        "root ::= text | into first",
        "first ::= " + " | ".join(f"pick{which}" for which in range(len(colourings))),
        "any ::= " + " | ".join(f"ad{number}" for number in range(ad_count)),
        'end ::= "]"',
    ]
    for which, colours in enumerate(colourings):
        rules += _picks(which, colours, most)
    return _TEXT + _INTO + "\n".join(rules) + "\n"


def _picks(which: int, colours: Sequence[int], most: int) -> Iterator[str]:
    """Yield the rules under one colouring: for each set of colours used, what may follow.

    which: the number of the colouring. colours: by an ad's number.
    """
    palette = sorted(set(colours))
    for colour in palette:
        ads = " | ".join(f"ad{ad}" for ad, its in enumerate(colours) if its == colour)
        yield f"of{which}_{colour} ::= {ads}"
    most = min(most, len(palette))
    for used in (used for count in range(most) for used in combinations(palette, count)):
        left = [colour for colour in palette if colour not in used]
        if len(used) + 1 == most:
            last = " | ".join(f"of{which}_{colour}" for colour in left)
            yield f"pick{_name(which, used)} ::= ({last}) text"
        else:
            next_ = (f"of{which}_{colour} rest{_name(which, (*used, colour))}" for colour in left)
            yield f"pick{_name(which, used)} ::= " + " | ".join(next_)
        if used:
            yield f"rest{_name(which, used)} ::= text | into pick{_name(which, used)}"


def _name(which: int, used: tuple[int, ...]) -> str:
    return "_".join(map(str, (which, *sorted(used))))


def _colourings(ad_count: int, most: int) -> list[list[int]]:
    """Return colours of ads by number; any `most` ads differ in at least one colouring."""
    ways = (_values(ad_count, most, digits) for digits in (1, 2, 3))
    return min(ways, key=lambda colourings: _reference_count(colourings, most))


def _values(ad_count: int, most: int, digits: int) -> list[list[int]]:
    """Return colourings whose colours are what polynomials take as values.

    The digits of an ad's number, in a base that is prime, are the coefficients of a polynomial
    over the integers modulo that base; one colouring has its values at one point. Two polynomials
    agree at fewer points than they have coefficients, so each pair of `most` ads has a common
    colour in fewer than `digits` colourings, and there is one colouring more than all pairs spoil.
    """
    points = comb(most, 2) * (digits - 1) + 1
    base = max(points, 2)
    while base**digits < ad_count or any(base % factor == 0 for factor in range(2, base)):
        base += 1
    numbers = [[ad // base**place % base for place in range(digits)] for ad in range(ad_count)]
    return [
        [sum(d * point**place for place, d in enumerate(number)) % base for number in numbers]
        for point in range(points)
    ]


def _reference_count(colourings: Sequence[Sequence[int]], most: int) -> int:
    """How many references to ads and to colours the rules of all colourings take."""
    sizes = [len(set(colours)) for colours in colourings]
    choices = sum(comb(size, used) * (size - used) for size in sizes for used in range(most))
    return choices + sum(map(len, colourings))
