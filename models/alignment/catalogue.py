"""What warm-start examples have beside the simulated world: invented ads, and further questions.

Invented ads are of other categories altogether, or known ones under other titles and ids.
"""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from models.simulation.nouns import Ad
from models.simulation.wordings import fill


@dataclass(frozen=True, slots=True)
class Parts:
    """What titles and ids are composed of."""

    beginnings: Sequence[str]
    endings: Sequence[str]
    titles: Sequence[str]
    ids: Sequence[str]

    def title(self, category: str, chance: random.Random) -> str:
        brand = chance.choice(self.beginnings) + chance.choice(self.endings)
        return chance.choice(self.titles).format(
            brand=brand, category=category.title(), number=chance.randint(2, 99)
        )

    def ad_id(self, chance: random.Random) -> str:
        return chance.choice(self.ids).format(number=chance.randint(100, 9999))


@dataclass(frozen=True, slots=True)
class InventedMarket:
    """Categories with what is offered and asked in each."""

    parts: Parts
    offers: dict[str, tuple[str, ...]]
    questions: dict[str, tuple[str, ...]]

    def ads(self, chance: random.Random) -> list[Ad]:
        """Two ads of every category, newly titled."""
        return self.renamed(
            [
                Ad("", "", category, offer)
                for category, offers in self.offers.items()
                for offer in offers
            ],
            chance,
        )

    def renamed(self, ads: Sequence[Ad], chance: random.Random) -> list[Ad]:
        """`ads` under new titles and ids, all ids different."""
        renamed: dict[str, Ad] = {}
        for ad in ads:
            while (ad_id := self.parts.ad_id(chance)) in renamed:
                pass
            title = self.parts.title(ad.category, chance)
            renamed[ad_id] = Ad(ad_id, title, ad.category, ad.description)
        return list(renamed.values())

    def written(self, chance: random.Random, per_wording: int) -> list[tuple[str, str]]:
        """(category, question) pairs, `per_wording` fillings of each wording, repeats left out."""
        pairs = [
            (category, fill(wording, {}, chance))
            for category, wordings in self.questions.items()
            for wording in wordings
            for _ in range(per_wording)
        ]
        return list(dict.fromkeys(pairs))


def load_further_questions() -> list[tuple[str | None, str]]:
    """(category, question) pairs about the categories of the demo catalogue, and of None: questions
    that no ad serves. None is a wording of the simulated users'."""
    tables = _data("questions.toml")
    pairs: list[tuple[str | None, str]] = [(None, text) for text in tables["unserved"]]
    return pairs + [(name, text) for name, texts in tables["served"].items() for text in texts]


def load_invented_market() -> InventedMarket:
    """The one that ships with the project."""
    tables = _data("catalogue.toml")
    parts = Parts(**tables.pop("parts"))
    return InventedMarket(
        parts,
        offers={name: tuple(table["offers"]) for name, table in tables.items()},
        questions={name: tuple(table["questions"]) for name, table in tables.items()},
    )


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("data", name).read_text(encoding="utf-8"))
