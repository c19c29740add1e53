"""People who ask: composed from ages, places, work, households, budgets, tastes and interests."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.contract.prompt import Profile
from models.simulation.randomness import generator
from models.simulation.wordings import data_file

_STUDENTS_UP_TO, _STUDENT_SHARE = 25, 0.5
_RETIRED_FROM = 66
_INTERESTS = (3, 5)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, before they ask. `wants`: categories that they ask about more than others do.

    age: years. home: a place. job: with its article. profile: all of it, as the model may read it.
    """

    age: int
    home: str
    job: str
    wants: tuple[str, ...]
    profile: Profile


def people(count: int, seed: int) -> list[Person]:
    """`count` people, no two with the same profile; the first n are the same for any count."""
    material = data_file("people.toml")
    found: dict[Profile, Person] = {}
    number = 0
    while len(found) < count:
        person = _person(material, generator("person", seed, number))
        found.setdefault(person.profile, person)
        number += 1
    return list(found.values())


def _person(material: dict[str, Any], chance: random.Random) -> Person:
    bands = material["age_bands"]
    band = chance.choices(bands, [band["weight"] for band in bands])[0]
    age = chance.randint(band["from"], band["to"])
    home = chance.choice(material["homes"])
    job = chance.choice(_jobs(material, age, chance))
    household = chance.choice(_for_age(material["households"], age))
    event = chance.choice(_for_age(material["events"], age))
    budget = chance.choice(material["budgets"])
    tastes = " and ".join(chance.sample(material["tastes"], 2))
    interests = chance.sample(sorted(material["interests"]), chance.randint(*_INTERESTS))
    wanted = [*event.get("wants", ()), *job["wants"], *household.get("wants", ())]
    for interest in interests:
        wanted += material["interests"][interest]
    info = (
        f"{age}, {job['name']} in {home}, {household['text']}. "
        f"{_sentence(event['text'])} {_sentence(budget)} {_sentence(tastes)}"
    )
    profile = Profile(info, tuple(interests))
    return Person(age, home, job["name"], tuple(dict.fromkeys(wanted)), profile)


def _jobs(material: dict[str, Any], age: int, chance: random.Random) -> Sequence[dict[str, Any]]:
    if age >= _RETIRED_FROM:
        return list(material["retired"])
    if age <= _STUDENTS_UP_TO and chance.random() < _STUDENT_SHARE:
        return list(material["students"])
    return list(material["jobs"])


def _for_age(blocks: Sequence[dict[str, Any]], age: int) -> list[dict[str, Any]]:
    return [block for block in blocks if block.get("from", 0) <= age <= block.get("to", 120)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
