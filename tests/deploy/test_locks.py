"""Locks that share one .venv: what one has installed, another does not replace."""

import re
from itertools import combinations
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
SHARED = ("cpu", "align", "load", "dev")
"""What `make serve`, `align`, `load` and `test` install; the GPUs' lock is for other machines."""
_PIN = re.compile(r"([\w.-]+)==(\S+)")


def pins(lock: str) -> dict[str, str]:
    """Each package's version, by its name."""
    lines = (REQUIREMENTS / f"{lock}.lock").read_text().splitlines()
    found = [_PIN.fullmatch(line) for line in lines]
    assert all(found), "a line that is no pin"
    return {pin[1]: pin[2] for pin in found if pin}


@pytest.mark.parametrize(("one", "other"), combinations(SHARED, 2))
def test_two_locks_agree_on_what_they_share(one: str, other: str) -> None:
    first, second = pins(one), pins(other)
    common = first.keys() & second.keys()
    assert {
        name: (first[name], second[name]) for name in common if first[name] != second[name]
    } == {}


@pytest.mark.parametrize("lock", SHARED[1:])
def test_each_has_all_that_serving_needs(lock: str) -> None:
    assert pins("cpu").keys() <= pins(lock).keys()
