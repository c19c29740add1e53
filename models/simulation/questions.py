"""Questions that people ask, written from wordings, without a language model."""

import random
from collections.abc import Sequence

from models.contract.neutral import neutralise_line
from models.simulation.nouns import Ad
from models.simulation.people import Person
from models.simulation.wordings import Material, Wordings, fill

_WANTED_SHARE = 0.6
_TOUCHED_SHARE = 0.4
_PERSONAL_SHARE = 0.5
_BEFORE_SHARE = 0.5
_HELD_OUT_SHARE = 0.5
_OFFER_WORDS = 9
_TRIES = 200


def subjects(
    person: Person,
    categories: Sequence[str],
    count: int,
    adless_share: float,
    chance: random.Random,
) -> tuple[str | None, ...]:
    """What `person` asks about, `count` times: one of `categories`, or None where no ad serves.

    adless_share: how likely None is, 0 to 1. What the person wants comes more often than the
    rest, and nothing twice as long as there are other categories.
    """
    chosen: list[str | None] = []
    for _ in range(count):
        if not categories or chance.random() < adless_share:
            chosen.append(None)
            continue
        left = [name for name in categories if name not in chosen] or list(categories)
        wanted = [name for name in left if name in person.wants]
        is_wanted = bool(wanted) and chance.random() < _WANTED_SHARE
        chosen.append(chance.choice(wanted if is_wanted else left))
    return tuple(chosen)


class QuestionWriter:
    """Writes questions from `material` about the categories of `ads`, never the same twice."""

    def __init__(self, material: Material, ads: Sequence[Ad]) -> None:
        self._material = material
        self._asked: set[str] = set()
        self._offers: dict[str, list[str]] = {}
        for ad in ads:
            self._offers.setdefault(ad.category, []).append(_offer(ad))

    def write(
        self, person: Person, category: str | None, is_held_out: bool, chance: random.Random
    ) -> str:
        """A new question of `person`'s; `is_held_out` lets it use held-out wordings.

        Raises ValueError where the wordings are exhausted: a world too big for them.
        """
        for _ in range(_TRIES):
            text = self._draft(person, category, is_held_out, chance)
            if self.claim(text):
                return text
        raise ValueError(
            f"No new question on {category or 'things that no ad serves'} was found in {_TRIES} "
            "tries: ask for fewer users, or fewer queries each"
        )

    def claim(self, text: str) -> bool:
        """Whether nobody asked `text` before; from now on somebody has."""
        is_new = text.casefold() not in self._asked
        self._asked.add(text.casefold())
        return is_new

    def _draft(
        self, person: Person, category: str | None, is_held_out: bool, chance: random.Random
    ) -> str:
        wordings = self._wordings(category, chance)
        is_other = is_held_out and chance.random() < _HELD_OUT_SHARE
        wording = chance.choice(wordings.held_out if is_other else wordings.wordings)
        slots = {
            **self._material.slots,
            "age": [str(person.age)],
            "home": [person.home],
            "job": [person.job],
        }
        if category is not None:
            slots |= {"category": [_in_a_sentence(category)], "offer": self._offers[category]}
        return fill(self._touched(wording, category is not None, chance), slots, chance)

    def _wordings(self, category: str | None, chance: random.Random) -> Wordings:
        if category is None:
            return self._material.general[chance.choice(sorted(self._material.general))]
        return self._material.shopping.get(category, self._material.generic)

    def _touched(self, wording: str, is_need: bool, chance: random.Random) -> str:
        """`wording`, at times with a greeting or a word about the person around it."""
        if chance.random() >= _TOUCHED_SHARE:
            return wording
        kind = "personal_" if is_need and chance.random() < _PERSONAL_SHARE else ""
        touches = self._material.touches
        if chance.random() < _BEFORE_SHARE:
            return chance.choice(touches[f"{kind}before"]) + wording
        return wording + chance.choice(touches[f"{kind}after"])


def _offer(ad: Ad) -> str:
    """How the ad begins to describe what it offers; may stand in a wording."""
    start = " ".join((ad.description or ad.title).split()[:_OFFER_WORDS]).rstrip(" ,.;:")
    return _unbraced(neutralise_line(start))


def _in_a_sentence(category: str) -> str:
    """`Car Rental` as `car rental`, but `SUVs` as it is; may stand in a wording."""
    words = (word.lower() if word.istitle() else word for word in category.split())
    return _unbraced(" ".join(words))


def _unbraced(text: str) -> str:
    return text.replace("{", "(").replace("}", ")").replace("|", "/")
