"""A card tells what its run's files tell, and says so where nothing was measured."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.alignment.card import write_card
from models.alignment.journal import append_row, open_for_rows
from models.alignment.presets import PAPER, REFINE, SMALL
from models.alignment.run import Run, open_run
from models.provision import DEFAULT_MODEL, servable_directory, shipped_adapter
from service.cli import app


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two answers, of which one has no whole sentence, twenty steps, and an epoch."""
    catalogue = tmp_path / "ads.jsonl"
    catalogue.write_text("{}\n")
    run = open_run(tmp_path / "run", SMALL, catalogue)
    with open_for_rows(run.answers) as file:
        append_row(file, {"query": "a", "answer": "A whole sentence. And a half"})
        append_row(file, {"query": "b", "answer": "only half a"})
    with open_for_rows(run.warm_start / "metrics.jsonl") as file:
        for step in range(1, 21):
            append_row(file, {"step": step, "loss": 2.2 - step / 10, "choice": 20.5 - step})
    with open_for_rows(run.times) as file:
        for stage, seconds in (("warm start", 60.0), ("warm start", 120.0), ("samples", 30.0)):
            append_row(file, {"stage": stage, "seconds": seconds, "cpu_seconds": 2 * seconds})
    (run.warm_start / "adapter").mkdir()
    (run.epoch(1) / "dpo" / "adapter").mkdir(parents=True)
    return run


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    directory = tmp_path / "evaluation"
    directory.mkdir()
    config = {
        "sizes": {"auctions": 80},
        "candidates": 10,
        "seed": 5,
        "sampling": {"max_tokens": 110},
        "is_constrained": True,
        "has_pctr": False,
    }
    manifest = {"config": config, "aligned": {"name": "model", "revision": "1a2b"}}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "report.md").write_text("### Earnings\n\n| aligned | 19.3 |\n")
    return directory


def test_counts_only_what_was_learnt_from(run: Run) -> None:
    assert "* 1 answers of the base model" in write_card(run, 0)


def test_names_the_adapter_that_was_gone_on_from(run: Run, tmp_path: Path) -> None:
    assert "goes on from" not in write_card(run, 0)
    card = write_card(open_run(tmp_path / "other", REFINE, run.catalogue), 0)

    digest = shipped_adapter(DEFAULT_MODEL).sha256()
    assert f"from the adapter of {DEFAULT_MODEL} with sha256 `{digest[:16]}" in card


def test_says_what_was_trained(run: Run, tmp_path: Path) -> None:
    by_adapter = write_card(run, 1)
    whole = write_card(open_run(tmp_path / "whole", PAPER, run.catalogue), 2)

    assert "| trained | an adapter of rank 16 (LoRA), after epoch 1 of preferences |" in by_adapter
    assert "| trained | all weights, after epoch 2 of preferences |" in whole
    assert "adapter" not in whole


def test_losses_are_the_first_and_the_last_of_training(run: Run) -> None:
    assert "| warm start | 20 | 2.05 → 0.25 |  |  | 19.00 → 1.00 |  |" in write_card(run, 0)


def test_a_stage_taken_up_again_counts_all_of_its_time(run: Run) -> None:
    card = write_card(run, 0)

    assert "| warm start | 3.0 | 6.0 |" in card
    assert "| all | 3.5 | 7.0 |" in card


def test_figures_are_those_of_the_evaluation_or_none(run: Run, evaluation: Path) -> None:
    assert "Not measured" in write_card(run, 0)
    measured = write_card(run, 0, evaluation)

    assert "Not measured" not in measured
    assert "`model` (1a2b), 80 auctions of 10 candidates, seed 5, at most 110 tokens" in measured
    assert "with the grammar, candidates listed by bid;" in measured
    assert "| aligned | 19.3 |" in measured


def test_an_evaluation_without_a_report_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    arguments = ["--run", str(run.directory), "--catalogue", str(run.catalogue)]
    result = CliRunner().invoke(app, ["align", "card", *arguments, "--evaluation", str(tmp_path)])

    assert result.exit_code == 2
    assert "report.md" in result.output.replace("\n", "")


def test_an_evaluation_of_another_model_is_refused(run: Run, evaluation: Path) -> None:
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    arguments = ["--run", str(run.directory), "--catalogue", str(run.catalogue)]
    of_another = ["align", "card", *arguments, "--evaluation", str(evaluation)]
    result = CliRunner().invoke(app, of_another)

    assert result.exit_code == 2
    assert "measured model (1a2b)" in " ".join(result.output.replace("│", " ").split())

    manifest = json.loads((evaluation / "manifest.json").read_text())
    manifest["aligned"]["revision"] = servable_directory(run.model).revision
    (evaluation / "manifest.json").write_text(json.dumps(manifest))
    assert CliRunner().invoke(app, of_another).exit_code == 0


@pytest.mark.parametrize(("arguments", "epochs"), [((), 1), (("--epochs", "0"), 0)])
def test_is_of_the_last_epoch_unless_told_otherwise_and_written_where_it_is_wanted(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], epochs: int
) -> None:
    out = tmp_path / "new" / "folder" / "MODEL_CARD.md"
    arguments += ("--run", str(run.directory), "--catalogue", str(run.catalogue))
    result = CliRunner().invoke(app, ["align", "card", *arguments, "--out", str(out)])

    assert result.exit_code == 0
    assert out.read_text() == write_card(run, epochs)


def test_there_is_none_of_what_was_not_trained(run: Run) -> None:
    arguments = ["--run", str(run.directory), "--catalogue", str(run.catalogue)]
    result = CliRunner().invoke(app, ["align", "card", *arguments, "--epochs", "2"])

    assert result.exit_code == 2
    assert "has not come to its end" in " ".join(result.output.replace("│", " ").split())
