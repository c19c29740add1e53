"""A run directory: what a training run is made of, and where its stages keep what they make.

run.json                preset, hash of the catalogue, versions
times.jsonl             what each stage took
answers.jsonl           ad-free answers of the base model
warm-start/             checkpoint, metrics.jsonl
epoch-1/policy/         the policy that the epoch samples from, servable
epoch-1/reward.jsonl    answers of the reward phase
epoch-1/pctr/           the click model's fit: pctr.json, calibration.png
epoch-1/samples.jsonl   answers of the policy phase
epoch-1/scored.jsonl    the same with their rewards, once all are drawn
epoch-1/dpo/            what the policy phase trains, by whatever loss: checkpoint, metrics.jsonl
model/                  what all of it has come to, servable
"""

import fcntl
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.alignment.journal import append_row, open_for_rows
from models.alignment.launch import is_first
from models.alignment.presets import Preset
from models.contract.prompt import CONTRACT_VERSION
from models.provision import shipped_adapter

_PACKAGES = ("torch", "transformers", "peft", "trl")
_DESCRIPTION = "run.json"
_DECIDING = ("preset", "catalogue_sha256", "contract")


class RunError(Exception):
    """The directory holds another run, or less of one than is needed, or another process is at work
    there; the message says what."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training run. Make it with `open_run`, find it with `find_run`."""

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

    @property
    def model(self) -> Path:
        return self.directory / "model"

    def epoch(self, number: int) -> Path:
        return self.directory / f"epoch-{number}"

    def scored(self, epoch: int) -> Path:
        return self.epoch(epoch) / "scored.jsonl"

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
        process and the children that it has ended have used. Of processes that train together, the
        first one's. For the main thread."""
        began, used = time.monotonic(), _cpu_seconds()
        try:
            with _ended_in_order():
                yield
        finally:
            taken = {
                "seconds": round(time.monotonic() - began, 1),
                "cpu_seconds": round(_cpu_seconds() - used, 1),
            }
            if is_first():
                with open_for_rows(self.times) as file:
                    append_row(file, {"stage": stage, **taken})


def open_run(directory: Path, preset: Preset, catalogue: Path) -> Run:
    """Begin a run at `directory`, or go on with the one that is there.

    Raises RunError where that one was begun with another preset, catalogue or adapter.
    """
    path = directory / _DESCRIPTION
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(_described(preset, catalogue), indent=2) + "\n")
        os.replace(partial, path)
    return _found(directory, preset, catalogue, (*_DECIDING, "adapter_sha256"))


def find_run(directory: Path, preset: Preset, catalogue: Path) -> Run:
    """Return the run at `directory`, to look into it. What it has made may have replaced the
    adapter that it went on from.

    Raises RunError where there is none, or one that was begun with another preset or catalogue.
    """
    if not (directory / _DESCRIPTION).is_file():
        raise RunError(f"{directory} holds no run: it has no {_DESCRIPTION}")
    return _found(directory, preset, catalogue, _DECIDING)


def begun_with(run: Run) -> Path:
    """Return the directory of the adapter that `run` went on from.

    Raises RunError where it began from nothing, or where that adapter has been replaced since.
    """
    if run.preset.adapter is None:
        raise RunError(f"The preset {run.preset.name} begins from nothing, and not with an adapter")
    adapter = shipped_adapter(run.preset.adapter)
    kept = json.loads((run.directory / _DESCRIPTION).read_text())
    if kept["adapter_sha256"] != adapter.sha256():
        raise RunError(f"{adapter.directory} is no longer the adapter that the run began with")
    return adapter.directory


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep other processes out of the run at `directory`; the operating system lets go of it when
    the holder dies. Of processes that train together, the first one holds it for all.

    Raises RunError where another one holds it.
    """
    if not is_first():
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"Another process is at work in {directory}: wait for its end, or name another one"
            ) from error
        yield


def _found(directory: Path, preset: Preset, catalogue: Path, deciding: Iterable[str]) -> Run:
    kept = json.loads((directory / _DESCRIPTION).read_text())
    described = _described(preset, catalogue)
    differing = [name for name in deciding if kept.get(name) != described[name]]
    if differing:
        raise RunError(
            f"{directory} holds a run with another {' and '.join(differing)}: "
            "name another directory, or give it the same"
        )
    return Run(directory, preset, catalogue)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Leave by SystemExit at a SIGTERM: schedulers send one before they take a machine back."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
