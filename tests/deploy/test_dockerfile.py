"""The Dockerfile's promises that can be read off it; building it shows the rest."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from models.provision import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "cpu-with-model", "cuda")


class Step(NamedTuple):
    word: str
    rest: str


def stages() -> dict[str, tuple[str, list[Step]]]:
    """Each stage's base and its steps, by its name, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, tuple[str, list[Step]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, steps := [])
        elif word and found:
            steps.append(Step(word, rest))
    return found


def lineage(target: str) -> list[Step]:
    """The steps that `target` is made of, its bases' first."""
    base, steps = stages()[target]
    return (lineage(base) if base in stages() else []) + steps


@pytest.mark.parametrize("target", TARGETS)
class TestTarget:
    def test_does_not_run_as_root(self, target: str) -> None:
        user = [step.rest for step in lineage(target) if step.word == "USER"][-1]
        assert user.split(":")[0].isdigit()
        assert user.split(":")[0] != "0"

    def test_has_a_health_check_and_starts_the_service(self, target: str) -> None:
        words = {step.word: step.rest for step in lineage(target)}
        assert "/readyz" in words["HEALTHCHECK"]
        assert words["ENTRYPOINT"] == '["python", "-m", "service.cli"]'
        assert words["CMD"] == '["serve"]'

    def test_has_no_installer_and_leaves_no_package_lists(self, target: str) -> None:
        for step in lineage(target):
            if step.word == "RUN" and "apt-get install" in step.rest:
                assert "--no-install-recommends" in step.rest
                assert "rm -rf /var/lib/apt/lists/*" in step.rest
                assert not re.search(r"venv|pip|curl|git|make", step.rest.split("&&")[1])

    def test_its_code_comes_after_its_packages(self, target: str) -> None:
        copies = [step.rest for step in lineage(target) if step.word == "COPY"]
        packages = [at for at, copy in enumerate(copies) if "-packages " in copy]
        assert packages == [0]
        assert copies[-1] == "--from=app / /app"


def test_the_model_in_the_image_is_the_one_that_is_served() -> None:
    steps = stages()["cpu-with-model"][1]
    [build] = [step.rest for step in steps if step.word == "RUN"]
    [settings] = [step.rest for step in steps if step.word == "ENV"]
    assert "provision(DEFAULT_MODEL, Path('/opt/models'), print)" in build
    assert settings == f"LLM_AUCTION_ENGINE__MODEL=/opt/models/{DEFAULT_MODEL}"


def test_every_package_is_pinned_by_a_lock() -> None:
    installs = [
        line
        for _, steps in stages().values()
        for step in steps
        for line in re.split(r"&&|\|\|", step.rest)
        if step.word == "RUN" and "pip install" in line
    ]
    assert installs
    assert all("--no-deps" in line for line in installs)


def test_copied_files_exist_and_are_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [
        step.rest.split()[0]
        for _, steps in stages().values()
        for step in steps
        if step.word == "COPY" and not step.rest.startswith("--from")
    ]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored


def test_the_default_target_is_the_cpus() -> None:
    assert list(stages())[-1] == "cpu"
