"""A run directory: what a training run is made of, and where its stages keep what they make.

run.json                preset, hash of the catalogue, versions
times.jsonl             what each stage took
answers.jsonl           ad-free answers of the base model
warm-start/             checkpoint, metrics.jsonl
epoch-1/policy/         the policy that the epoch samples from, servable
epoch-1/reward.jsonl    answers of the reward phase
epoch-1/pctr/           the click model's fit: pctr.json, calibration.png
epoch-1/samples.jsonl   answers of the policy phase
epoch-1/dpo/            checkpoint, metrics.jsonl
model/                  what all of it has come to, servable
"""

import hashlib
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.alignment.journal import append_row, open_for_rows
from models.alignment.presets import Preset
from models.contract.prompt import CONTRACT_VERSION
from models.provision import shipped_adapter

_PACKAGES = ("torch", "transformers", "peft", "trl")


class RunError(Exception):
    """The directory holds another run, or less of one than is needed; the message says what."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training run. Make it with `open_run`."""

    directory: Path
    preset: Preset
    catalogue: Path

    @property
    def answers(self) -> Path:
        return self.directory / "answers.jsonl"

    @property
    def times(self) -> Path:
        return self.directory / "times.jsonl"

    @property
    def warm_start(self) -> Path:
        return self.directory / "warm-start"

    def epoch(self, number: int) -> Path:
        return self.directory / f"epoch-{number}"

    def trained_before(self, epoch: int) -> Path | None:
        """What the training before `epoch` (1, 2, ...) has left: a directory `adapter`, or `model`
        where all parameters were trained; None for the base itself, before the first epoch of a
        run without a warm start. Raises RunError where that training has not come to its end."""
        if epoch == 1 and not self.preset.answers:
            return None
        stage = self.warm_start if epoch == 1 else self.epoch(epoch - 1) / "dpo"
        for name in ("adapter", "model"):
            if (stage / name).is_dir():
                return stage / name
        raise RunError(f"The training at {stage} has not come to its end: run that stage first")

    def adapter_before(self, epoch: int) -> Path | None:
        """The adapter that `trained_before` finds. Raises RunError for a whole model."""
        trained = self.trained_before(epoch)
        if trained is not None and trained.name != "adapter":
            raise RunError(f"{trained} is a whole model, which is served and shipped as it is")
        return trained

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what `stage` takes to `times`: seconds by the clock, and of the cores that this
        process and the children that it has ended have used."""
        began, used = time.monotonic(), _cpu_seconds()
        try:
            yield
        finally:
            taken = {
                "seconds": round(time.monotonic() - began, 1),
                "cpu_seconds": round(_cpu_seconds() - used, 1),
            }
            with open_for_rows(self.times) as file:
                append_row(file, {"stage": stage, **taken})


def open_run(directory: Path, preset: Preset, catalogue: Path) -> Run:
    """Begin a run at `directory`, or go on with the one that is there.

    Raises RunError where that one was begun with another preset or catalogue.
    """
    directory.mkdir(parents=True, exist_ok=True)
    described = _described(preset, catalogue)
    path = directory / "run.json"
    if path.exists():
        kept = json.loads(path.read_text())
        differing = [
            name
            for name in ("preset", "catalogue_sha256", "contract")
            if kept.get(name) != described[name]
        ]
        if differing:
            raise RunError(
                f"{directory} holds a run with another {' and '.join(differing)}: "
                "name another directory, or give it the same"
            )
    else:
        path.write_text(json.dumps(described, indent=2) + "\n")
    return Run(directory, preset, catalogue)


def _cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _described(preset: Preset, catalogue: Path) -> dict[str, Any]:
    begin = shipped_adapter(preset.adapter).sha256() if preset.adapter else None
    described = {
        "preset": asdict(preset),
        "adapter_sha256": begin,
        "catalogue_sha256": hashlib.sha256(catalogue.read_bytes()).hexdigest(),
        "contract": CONTRACT_VERSION,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    as_kept: dict[str, Any] = json.loads(json.dumps(described))
    return as_kept
