"""An ad woven into an answer that was written without it: what a warm-start example teaches.

The ad comes in a sentence of its own after the first one: never first, never last, never alone on a
line. One place and one opening leave a small model one decision, to be learnt from every example
(with five openings and two places it held the odds of an ad down). The sentence names what the ad
is about before the marker, so that its tokens are a chain of easy decisions (is there something for
this user, of which kind, whose ad), and says after it what the ad offers, in words that stand in
the candidate's line.
"""

import random
import re
from dataclasses import dataclass
from typing import Final

from models.contract.prompt import MAX_DESCRIPTION_CHARACTERS
from models.simulation.nouns import Ad

OPENING: Final = "For {category},"
MIDDLES: Final = (
    " consider {ad}: {offer}.",
    " {ad} is worth a look: {offer}.",
    " one good option is {ad}: {offer}.",
    " you could try {ad}: {offer}.",
    " {ad} may suit you: {offer}.",
    " have a look at {ad}: {offer}.",
)
CLOSINGS: Final = (
    "That should get you started.",
    "See what works best for you.",
    "Take your time and compare.",
    "I hope this helps.",
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d+\.$")
_DANGLING = re.compile(r"(?:[ ,;:]+(?:a|an|the|and|or|for|with|of|in|on|to|at|by|from|that|no))+$")


@dataclass(frozen=True, slots=True)
class Woven:
    """An answer. Spans are characters: what was put in, the marker in it; None without."""

    text: str
    sentence: tuple[int, int] | None = None
    marker: tuple[int, int] | None = None

    @property
    def plain(self) -> str:
        """The answer that it was put into."""
        if self.sentence is None:
            return self.text
        start, stop = self.sentence
        return self.text[:start] + self.text[stop:]


def sentence_ends(text: str) -> list[int]:
    """Where sentences of `text` end that another follows; a list's numbers end none."""
    return [
        found.end()
        for found in _SENTENCE_END.finditer(text)
        if not _LIST_NUMBER.search(text[: found.end()])
    ]


def weave(answer: str, ad: Ad, chance: random.Random) -> Woven:
    """Return `answer` (whole sentences, not empty) with `ad` in it."""
    places = sentence_ends(answer)
    place = places[0] if places else len(answer)
    closing = "" if places else f" {chance.choice(CLOSINGS)}"
    opening = OPENING.format(category=ad.category)
    before, after = chance.choice(MIDDLES).split("{ad}")
    lead = f" {opening}{before}"
    marker = ad.marked.marker
    offer = offer_in_brief(ad)
    after = after.format(offer=offer) if offer else after.replace(": {offer}", "")
    sentence = f"{lead}{marker}{after}{closing}"
    start = place + len(lead)
    return Woven(
        answer[:place] + sentence + answer[place:],
        sentence=(place, place + len(sentence)),
        marker=(start, start + len(marker)),
    )


def offer_in_brief(ad: Ad) -> str:
    """What the ad offers, in words that the model reads in the candidate's line."""
    text = ad.description
    if len(text) > MAX_DESCRIPTION_CHARACTERS:
        text = text[: MAX_DESCRIPTION_CHARACTERS + 1].rpartition(" ")[0] or text[:64]
    clause = re.split(r"[.:;]", text)[0]
    clause = _DANGLING.sub("", clause.rstrip(" ,;:"))
    return clause if clause[1:2].isupper() else clause[:1].lower() + clause[1:]
