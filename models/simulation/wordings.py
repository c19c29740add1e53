"""The written material of a world: wordings of questions, and what people are made of.

A wording holds alternatives, `{a|b|c}`, and named slots, `{city}`. The files are in `data/`.
"""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

_SLOT = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Wordings:
    """Ways to ask for one thing. `held_out` ones are asked by users of the test split alone."""

    wordings: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """All that questions are written from.

    shopping: by the category that serves them. general: by subject; no ad serves them. generic:
    for categories that `shopping` lacks. slots: words by slot name. touches: what people say
    before and after a question, by place.
    """

    shopping: Mapping[str, Wordings]
    general: Mapping[str, Wordings]
    generic: Wordings
    slots: Mapping[str, Sequence[str]]
    touches: Mapping[str, Sequence[str]]


def load_material() -> Material:
    """The material that ships with the project."""
    general = data_file("general.toml")
    return Material(
        shopping={name: _wordings(table) for name, table in data_file("shopping.toml").items()},
        general={name: _wordings(table) for name, table in general["subjects"].items()},
        generic=_wordings(general["generic"]),
        slots=general["slots"],
        touches=general["touches"],
    )


@lru_cache
def data_file(name: str) -> dict[str, Any]:
    """The tables of a packaged TOML file; not to be changed."""
    return tomllib.loads(files(__package__).joinpath("data", name).read_text(encoding="utf-8"))


def fill(wording: str, slots: Mapping[str, Sequence[str]], chance: random.Random) -> str:
    """Return `wording` with a part chosen for each slot; the same slot may be filled twice.

    An alternative may hold slots itself; what fills a slot may hold no braces. Raises ValueError
    for a slot that has no name in `slots`.
    """

    def chosen(match: re.Match[str]) -> str:
        parts = str(match[1]).split("|")
        if len(parts) > 1:
            return chance.choice(parts)
        if parts[0] not in slots:
            raise ValueError(f"The wording {wording!r} has a slot {parts[0]!r} that is not known")
        return chance.choice(slots[parts[0]])

    text = wording
    while (filled := _SLOT.sub(chosen, text)) != text:
        text = filled
    return text


def _wordings(table: Mapping[str, Sequence[str]]) -> Wordings:
    return Wordings(tuple(table["wordings"]), tuple(table["held_out"]))
