"""A run directory goes on with the run that it holds, and with no other."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.alignment.dpo import PreferenceLoss
from models.alignment.journal import read_rows
from models.alignment.presets import PAPER, PRESETS, REFINE, SMALL
from models.alignment.run import RunError, find_run, held, open_run
from models.alignment.trl_training import TrlOptions
from models.lora import Adapter


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "ads.jsonl"
    path.write_text("{}\n")
    return path


def test_is_opened_again(tmp_path: Path, catalogue: Path) -> None:
    first = open_run(tmp_path / "run", SMALL, catalogue)

    assert open_run(tmp_path / "run", SMALL, catalogue) == first


def test_refuses_another_preset_and_another_catalogue(tmp_path: Path, catalogue: Path) -> None:
    open_run(tmp_path / "run", SMALL, catalogue)
    with pytest.raises(RunError, match="another preset"):
        open_run(tmp_path / "run", replace(SMALL, delta=SMALL.delta + 1), catalogue)
    catalogue.write_text("{}\n{}\n")
    with pytest.raises(RunError, match="another catalogue_sha256"):
        open_run(tmp_path / "run", SMALL, catalogue)


def test_refuses_to_go_on_from_another_adapter_but_is_looked_into(
    tmp_path: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", REFINE, catalogue)
    monkeypatch.setattr(Adapter, "sha256", lambda self: "another")

    with pytest.raises(RunError, match="another adapter_sha256"):
        open_run(tmp_path / "run", REFINE, catalogue)
    assert find_run(tmp_path / "run", REFINE, catalogue) == run


def test_a_run_that_is_none_is_not_found(tmp_path: Path, catalogue: Path) -> None:
    with pytest.raises(RunError, match=r"typo holds no run"):
        find_run(tmp_path / "typo", SMALL, catalogue)
    open_run(tmp_path / "run", SMALL, catalogue)
    with pytest.raises(RunError, match="another preset"):
        find_run(tmp_path / "run", PAPER, catalogue)
    assert not (tmp_path / "typo").exists()


HOLD = """
import sys
from pathlib import Path
from models.alignment.run import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_is_held_by_one_process_until_it_ends(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=pytestconfig.rootpath
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="Another process is at work"), held(tmp_path):
            pass
        monkeypatch.setenv("RANK", "1")
        with held(tmp_path):  # by the first of those that train together
            pass
        monkeypatch.delenv("RANK")
        other.kill()
    with held(tmp_path):
        pass


def test_an_epoch_begins_with_what_the_one_before_has_trained(
    tmp_path: Path, catalogue: Path
) -> None:
    run = open_run(tmp_path / "run", SMALL, catalogue)
    (run.warm_start / "adapter").mkdir(parents=True)
    (run.epoch(1) / "dpo" / "adapter").mkdir(parents=True)

    assert run.trained_before(1) == run.warm_start / "adapter"
    assert run.trained_before(2) == run.adapter_before(2) == run.epoch(1) / "dpo" / "adapter"


def test_a_training_that_has_not_ended_is_nothing_to_go_on_from(
    tmp_path: Path, catalogue: Path
) -> None:
    run = open_run(tmp_path / "run", SMALL, catalogue)
    (run.warm_start / "adapter.partial").mkdir(parents=True)

    with pytest.raises(RunError, match="warm-start has not come to its end"):
        run.trained_before(1)
    with pytest.raises(RunError, match="epoch-1/dpo has not come to its end"):
        run.trained_before(2)


def test_without_a_warm_start_the_first_epoch_has_the_base_and_the_next_its_model(
    tmp_path: Path, catalogue: Path
) -> None:
    run = open_run(tmp_path / "run", PAPER, catalogue)
    (run.epoch(1) / "dpo" / "model").mkdir(parents=True)

    assert run.trained_before(1) is None
    assert run.trained_before(2) == run.epoch(1) / "dpo" / "model"
    with pytest.raises(RunError, match="is a whole model"):
        run.adapter_before(2)


def test_the_paper_preset_is_the_sources() -> None:
    sampling = PAPER.sampling.sampling

    assert (PAPER.dpo.beta, PAPER.dpo.learning_rate, PAPER.delta) == (0.1, 1e-6, 10)
    assert (PAPER.sampling.per_auction, PAPER.reward_samples) == (5, 10)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.8, 20)
    assert PAPER.trl is not None
    assert (PAPER.trl.batch, PAPER.trl.lora_rank) == (64, None)


@pytest.mark.parametrize("name", ["small", "refine", "paper"])
def test_every_preset_has_its_like_by_ipo(name: str) -> None:
    by_dpo, by_ipo = PRESETS[name], PRESETS[f"{name}-ipo"]

    assert (by_dpo.dpo.loss, by_ipo.dpo.loss) == (PreferenceLoss.DPO, PreferenceLoss.IPO)
    assert replace(by_ipo, name=name, dpo=by_dpo.dpo) == by_dpo


def test_the_paper_preset_can_train_online() -> None:
    by_grpo = PRESETS["paper-grpo"]

    assert by_grpo.trl == replace(PAPER.trl or TrlOptions(), is_online=True)
    assert replace(by_grpo, name="paper", trl=PAPER.trl) == PAPER


TAKEN_BACK = """
import os, pathlib, signal, sys
from models.alignment.presets import SMALL
from models.alignment.run import find_run
with find_run(pathlib.Path(sys.argv[1]), SMALL, pathlib.Path(sys.argv[2])).timed("warm start"):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""
BUSY = "import time\nwhile time.process_time() < 0.6: pass"


def test_stages_that_were_killed_and_taken_up_leave_their_times(
    tmp_path: Path, catalogue: Path
) -> None:
    run = open_run(tmp_path / "run", SMALL, catalogue)
    with pytest.raises(KeyboardInterrupt), run.timed("warm start"):
        raise KeyboardInterrupt
    with run.timed("warm start"):
        subprocess.run([sys.executable, "-c", BUSY], check=True)

    killed, finished = read_rows(run.times)
    assert killed["stage"] == finished["stage"] == "warm start"
    assert killed["cpu_seconds"] < 0.5 <= finished["cpu_seconds"] < 30
    assert finished["seconds"] >= 0.5


def test_a_stage_whose_machine_is_taken_back_leaves_its_time(
    tmp_path: Path, catalogue: Path
) -> None:
    run = open_run(tmp_path / "run", SMALL, catalogue)
    child = subprocess.run([sys.executable, "-c", TAKEN_BACK, run.directory, catalogue])

    assert child.returncode == 128 + signal.SIGTERM
    assert [row["stage"] for row in read_rows(run.times)] == ["warm start"]
