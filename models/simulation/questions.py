"""Questions that people ask, written from wordings, without a language model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.contract.neutral import neutralise_line
from models.simulation.nouns import Ad
from models.simulation.people import Person
from models.simulation.wordings import Material, Wordings, fill

_WANTED_SHARE = 0.6
_TOUCHED_SHARE = 0.4
_HELD_OUT_SHARE = 0.5
_OFFER_WORDS = 9
_TRIES = 200


@dataclass
class QuestionWriter:
    """Writes questions, never the same twice.

    material: what they are written from. ads: the catalogue; its categories are what is asked for.
    adless_share: of questions that no ad serves, 0 to 1.
    """

    material: Material
    ads: Sequence[Ad]
    adless_share: float
    _asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._categories = sorted({ad.category for ad in self.ads if ad.category})

    def categories(self, person: Person, count: int, chance: random.Random) -> list[str | None]:
        """What `person` asks about, `count` times: categories, or None where no ad serves."""
        chosen: list[str | None] = []
        for _ in range(count):
            if not self._categories or chance.random() < self.adless_share:
                chosen.append(None)
                continue
            left = [name for name in self._categories if name not in chosen] or self._categories
            wanted = [name for name in left if name in person.wants]
            is_wanted = bool(wanted) and chance.random() < _WANTED_SHARE
            chosen.append(chance.choice(wanted if is_wanted else left))
        return chosen

    def write(
        self, person: Person, category: str | None, is_held_out: bool, chance: random.Random
    ) -> str:
        """A new question of `person`'s; `is_held_out` lets it use held-out wordings.

        Raises ValueError where the wordings are exhausted: a world too big for them.
        """
        for _ in range(_TRIES):
            text = self._draft(person, category, is_held_out, chance)
            if text.casefold() not in self._asked:
                self._asked.add(text.casefold())
                return text
        raise ValueError(
            f"No new question on {category or 'things that no ad serves'} was found in {_TRIES} "
            "tries: ask for fewer users, or fewer queries each"
        )

    def _draft(
        self, person: Person, category: str | None, is_held_out: bool, chance: random.Random
    ) -> str:
        wordings = self._wordings(category, chance)
        is_other = is_held_out and chance.random() < _HELD_OUT_SHARE
        wording = chance.choice(wordings.held_out if is_other else wordings.wordings)
        slots = {
            **self.material.slots,
            "age": [str(person.age)],
            "home": [person.home],
            "job": [person.job],
            **({"category": [category], "offer": self._offers(category)} if category else {}),
        }
        return fill(self._touched(wording, category is not None, chance), slots, chance)

    def _wordings(self, category: str | None, chance: random.Random) -> Wordings:
        if category is None:
            return self.material.general[chance.choice(sorted(self.material.general))]
        return self.material.shopping.get(category, self.material.generic)

    def _touched(self, wording: str, is_personal: bool, chance: random.Random) -> str:
        """`wording`, at times with a word of greeting or of the person around it."""
        if chance.random() >= _TOUCHED_SHARE:
            return wording
        kind = "personal_" if is_personal and chance.random() < 0.5 else ""
        touches = self.material.touches
        if chance.random() < 0.5:
            return chance.choice(touches[f"{kind}before"]) + wording
        return wording + chance.choice(touches[f"{kind}after"])

    def _offers(self, category: str) -> list[str]:
        """How the ads of `category` begin to describe what they offer."""
        texts = [ad.description or ad.title for ad in self.ads if ad.category == category]
        starts = (" ".join(text.split()[:_OFFER_WORDS]).rstrip(" ,.;:") for text in texts)
        return [neutralise_line(start).replace("{", "(").replace("}", ")") for start in starts]
