"""Locks that share one .venv: what one has installed, another does not replace."""

import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
SHARED = ("cpu", "align", "load", "dev")
"""What `make serve`, `align`, `load` and `test` install."""
GPU = ("gpu", "gpu-align")
_PIN = re.compile(r"([\w.-]+)==(\S+)")


def pins(lock: str) -> dict[str, str]:
    """Each package's version, by its name."""
    lines = (REQUIREMENTS / f"{lock}.lock").read_text().splitlines()
    found = [_PIN.fullmatch(line) for line in lines]
    assert all(found), "a line that is no pin"
    return {pin[1]: pin[2] for pin in found if pin}


@pytest.mark.parametrize(("one", "other"), [*combinations(SHARED, 2), GPU])
def test_two_locks_agree_on_what_they_share(one: str, other: str) -> None:
    first, second = pins(one), pins(other)
    common = first.keys() & second.keys()
    assert {
        name: (first[name], second[name]) for name in common if first[name] != second[name]
    } == {}


@pytest.mark.parametrize(("serving", "lock"), [*(("cpu", lock) for lock in SHARED[1:]), GPU])
def test_each_has_all_that_serving_needs(serving: str, lock: str) -> None:
    assert pins(serving).keys() <= pins(lock).keys()


@pytest.mark.parametrize(("here", "wanted"), [("cpu", "gpu"), ("gpu", "align")])
def test_packages_for_cpus_and_gpus_do_not_go_into_one_place(
    here: str, wanted: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements"):
        (tmp_path / name).symlink_to(REQUIREMENTS.parent / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / f"{here}.done").touch()
    refused = subprocess.run(
        ["make", f".venv/{wanted}.done"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert f"here is .venv/{here}.done" in refused.stdout
    assert "Installing" not in refused.stdout
