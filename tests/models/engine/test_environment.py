"""What a process must be started with, on a CPU and on a GPU."""

import os
import sys
from pathlib import Path

import pytest

from models.engine import environment
from models.engine.environment import physical_cores, prepare_process, process_environment


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that vLLM's CPU build is installed in `tmp_path` and return its OpenMP library."""
    monkeypatch.setattr(environment, "has_cpu_vllm", lambda: True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libiomp5.so"
    library.touch()
    return library


def test_a_process_started_with_the_additions_needs_no_more(on_cpu: Path) -> None:
    env = {"PATH": "/bin"}
    env |= process_environment(env)

    assert process_environment(env) == {}


def test_a_cpu_gets_threads_openmp_and_huge_pages(on_cpu: Path) -> None:
    additions = process_environment({})

    assert int(additions["OMP_NUM_THREADS"]) >= 1
    assert additions["THP_MEM_ALLOC_ENABLE"] == "1"
    assert additions["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert str(on_cpu) in additions["LD_PRELOAD"].split(":")


def test_a_gpu_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_cpu_vllm", lambda: False)
    additions = process_environment({})

    assert not {"LD_PRELOAD", "OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING"} & set(additions)
    assert additions["VLLM_NO_USAGE_STATS"] == additions["DO_NOT_TRACK"] == "1"


class TestSamplerOfAGpu:
    NAME = "VLLM_USE_FLASHINFER_SAMPLER"

    @pytest.fixture(autouse=True)
    def tools(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A folder for the only tools there are, on a machine with a GPU."""
        monkeypatch.setattr(environment, "has_cpu_vllm", lambda: False)
        monkeypatch.setattr(environment, "_CUDA_TOOLKIT", str(tmp_path / "cuda"))
        (tmp_path / "path").mkdir()
        return tmp_path / "path"

    @staticmethod
    def install(*tools: Path) -> None:
        for tool in tools:
            tool.parent.mkdir(parents=True, exist_ok=True)
            tool.touch(mode=0o755)

    def test_is_not_compiled_without_a_toolkit(self, tools: Path) -> None:
        self.install(tools / "ninja", tools / "c++")

        assert process_environment({"PATH": str(tools)})[self.NAME] == "0"

    @pytest.mark.parametrize("missing", ["ninja", "c++"])
    def test_is_not_compiled_without_a_builder(self, tools: Path, missing: str) -> None:
        self.install(*(tools / tool for tool in {"nvcc", "ninja", "c++"} - {missing}))

        assert process_environment({"PATH": str(tools)})[self.NAME] == "0"

    @pytest.mark.parametrize("nvcc", ["path/nvcc", "cuda/bin/nvcc", "mine/bin/nvcc"])
    def test_is_left_to_vllm_where_it_compiles(self, tools: Path, nvcc: str) -> None:
        root = tools.parent
        self.install(tools / "ninja", tools / "c++", root / nvcc)
        home = {"CUDA_HOME": str(root / "mine")} if nvcc.startswith("mine") else {}

        assert self.NAME not in process_environment({"PATH": str(tools), **home})

    def test_is_as_the_environment_says(self, tools: Path) -> None:
        assert self.NAME not in process_environment({"PATH": str(tools), self.NAME: "1"})

    def test_is_no_matter_on_a_cpu(self, monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
        monkeypatch.setattr(environment, "has_cpu_vllm", lambda: True)

        assert self.NAME not in process_environment({"PATH": str(tools)})


def test_what_is_set_already_stays(on_cpu: Path) -> None:
    env = {"OMP_NUM_THREADS": "7", "VLLM_LOGGING_LEVEL": "DEBUG", "LD_PRELOAD": "mine.so"}
    additions = process_environment(env)

    assert not {"OMP_NUM_THREADS", "VLLM_LOGGING_LEVEL"} & set(additions)
    assert additions["LD_PRELOAD"].endswith(":mine.so")


def test_the_network_is_only_off_where_asked() -> None:
    assert "HF_HUB_OFFLINE" not in process_environment({})
    assert process_environment({}, offline=True)["HF_HUB_OFFLINE"] == "1"


class TestPhysicalCores:
    @pytest.fixture(autouse=True)
    def eight_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))

    def test_two_threads_of_a_core_count_once(self, tmp_path: Path) -> None:
        for cpu in range(8):
            topology = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")

        assert physical_cores(tmp_path) == 4

    @pytest.mark.parametrize(
        ("quota", "cores"), [("250000 100000", 3), ("50000 100000", 1), ("max 100000", 8)]
    )
    def test_a_quota_limits_them(self, tmp_path: Path, quota: str, cores: int) -> None:
        (tmp_path / "fs/cgroup").mkdir(parents=True)
        (tmp_path / "fs/cgroup/cpu.max").write_text(quota)

        assert physical_cores(tmp_path) == cores

    def test_an_unknown_topology_counts_every_cpu(self, tmp_path: Path) -> None:
        assert physical_cores(tmp_path) == 8


def test_a_command_is_started_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, env: started.append((command, env)))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "service.cli", "serve"])
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    prepare_process()
    [(command, env)] = started
    assert command == [sys.executable, "-m", "service.cli", "serve"]
    assert env["VLLM_NO_USAGE_STATS"] == "1"
    for name in env.keys() - os.environ.keys() - {"VLLM_NO_USAGE_STATS"}:
        monkeypatch.setenv(name, env[name])  # all but what cannot be had
    prepare_process()
    assert len(started) == 1
