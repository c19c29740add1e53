"""`llm-auction align`: help that teaches, and errors that say what is allowed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.alignment import cli, pipeline, shipping
from models.alignment.pipeline import Pipeline
from models.alignment.presets import CLOSE, SMALL
from models.alignment.run import held, open_run
from models.alignment.shipping import Aligned
from models.engine.interface import EngineError
from models.provision import DEFAULT_MODEL, ServableModel, shipped_adapter
from service.cli import DEMO_ADS, app

runner = CliRunner()


@pytest.mark.parametrize(
    "command", ["all", "warm-start", "pctr", "sample", "dpo", "grpo", "ship", "card"]
)
def test_every_stage_explains_itself(command: str) -> None:
    result = runner.invoke(app, ["align", command, "--help"])

    assert result.exit_code == 0
    assert "--run" in result.output


def test_an_unknown_preset_is_refused_by_name(tmp_path: Path) -> None:
    result = runner.invoke(app, ["align", "all", "--preset", "huge", "--run", str(tmp_path)])

    assert result.exit_code == 2
    assert "small" in result.output
    assert "paper" in result.output


def read(result: Result) -> str:
    """What was printed, without frames and lines' ends."""
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("command", [("ship", "out"), ("card",)])
def test_what_tells_of_a_run_needs_one_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["align", *command, "--run", "typo"])

    assert result.exit_code == 2
    assert "typo holds no run: it has no run.json" in read(result)
    assert list(tmp_path.iterdir()) == []


def test_shipping_needs_something_trained(tmp_path: Path) -> None:
    open_run(tmp_path / "run", SMALL, DEMO_ADS)
    result = runner.invoke(
        app, ["align", "ship", str(tmp_path / "out"), "--run", str(tmp_path / "run")]
    )

    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "has not come to its end" in read(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "shipped"), [((), "epoch-1/dpo"), (("--epochs", "0"), "warm-start")]
)
def test_ships_what_the_last_epoch_has_trained_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], shipped: str
) -> None:
    run = open_run(tmp_path / "run", SMALL, DEMO_ADS)
    for stage in ("epoch-1/dpo", "warm-start"):
        (run.directory / stage / "adapter").mkdir(parents=True)
    taken: list[Path] = []
    monkeypatch.setattr(shipping, "ship", lambda adapter, *_, **__: taken.append(adapter))
    arguments = ("--run", str(run.directory), *arguments)
    result = runner.invoke(app, ["align", "ship", str(tmp_path / "out"), *arguments])

    assert result.exit_code == 0
    assert taken == [run.directory / shipped / "adapter"]


def test_what_cannot_ship_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("The adapter has 13 bytes; at most 12 ship")

    run = open_run(tmp_path / "run", SMALL, DEMO_ADS)
    (run.directory / "epoch-1/dpo/adapter").mkdir(parents=True)
    monkeypatch.setattr(shipping, "ship", refuse)
    of_run = ["align", "ship", str(tmp_path / "out"), "--run", str(run.directory)]
    result = runner.invoke(app, of_run)

    assert result.exit_code == 2
    assert "at most 12 ship" in read(result)


class TestShare:
    def test_goes_from_the_adapter_that_the_run_began_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = open_run(tmp_path / "run", CLOSE, DEMO_ADS)
        (run.directory / "warm-start/adapter").mkdir(parents=True)
        written: list[tuple[str, Path | None, float]] = []

        def note(
            adapter: Path, target: Path, aligned: Aligned, *, start: Path, share: float
        ) -> None:
            written.append((aligned.recipe, start, share))

        monkeypatch.setattr(shipping, "ship", note)
        of_run = ["align", "ship", str(tmp_path / "out"), "--run", str(run.directory)]
        of_run += ["--preset", "close", "--share", "0.3"]
        assert runner.invoke(app, of_run).exit_code == 0
        began = shipped_adapter(DEFAULT_MODEL).directory
        assert written == [("close, 0 epochs, 0.3 of the way", began, 0.3)]

        described = json.loads((run.directory / "run.json").read_text())
        (run.directory / "run.json").write_text(json.dumps(described | {"adapter_sha256": "0"}))
        result = runner.invoke(app, of_run)
        assert result.exit_code == 2
        assert "no longer the adapter" in read(result)

    def test_a_run_from_nothing_has_no_way_to_share(self, tmp_path: Path) -> None:
        run = open_run(tmp_path / "run", SMALL, DEMO_ADS)
        (run.directory / "warm-start/adapter").mkdir(parents=True)
        of_run = ["align", "ship", str(tmp_path / "out"), "--run", str(run.directory)]
        result = runner.invoke(app, [*of_run, "--epochs", "0", "--share", "0.5"])
        assert result.exit_code == 2
        assert "begins from nothing" in read(result)


class TestStages:
    @pytest.fixture(autouse=True)
    def nothing_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli, "prepare_process", lambda: None)
        monkeypatch.setattr(pipeline, "provision", lambda name, *_: ServableModel(name, name, ""))

    def test_tell_why_no_engine_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise EngineError("vLLM cannot serve it: no [memory] left")

        monkeypatch.setattr(Pipeline, "warm_start", fail)
        result = runner.invoke(app, ["align", "warm-start", "--run", str(tmp_path / "run")])

        assert result.exit_code == 1
        assert "Stopped: vLLM cannot serve it: no [memory] left" in read(result)
        assert isinstance(result.exception, SystemExit)

    def test_tell_which_titles_could_be_misread(self, tmp_path: Path) -> None:
        ads = tmp_path / "ads.jsonl"
        rows = [{"title": title} for title in ("Boot", "[Ad-1] Tent", *"abcdefghij")]
        ads.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = ["--run", str(tmp_path / "run"), "--catalogue", str(ads)]
        result = runner.invoke(app, ["align", "warm-start", *arguments])

        assert result.exit_code == 1
        assert "ads.jsonl is not fit for auctions" in read(result)

    def test_show_rows_that_are_left_out(self, tmp_path: Path) -> None:
        ads = tmp_path / "ads.jsonl"
        ads.write_text(DEMO_ADS.read_text() + "no JSON\n" * 7)
        arguments = ["--run", str(tmp_path / "run"), "--catalogue", str(ads)]
        result = runner.invoke(app, ["align", "warm-start", *arguments, "--preset", "paper"])
        first = len(DEMO_ADS.read_text().splitlines()) + 1

        assert f"ads.jsonl, line {first}: it is not JSON" in read(result)
        assert read(result).count("it is not JSON") == 5
        assert "7 rows of ads.jsonl were left out" in read(result)

    def test_are_for_one_process_at_a_time(self, tmp_path: Path) -> None:
        with held(tmp_path / "run"):
            result = runner.invoke(app, ["align", "warm-start", "--run", str(tmp_path / "run")])

        assert result.exit_code == 1
        assert "Another process is at work" in read(result)


def test_help_imports_no_torch(pytestconfig: pytest.Config) -> None:
    script = "import sys, service.cli; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script]

    assert subprocess.run(command, cwd=pytestconfig.rootpath, check=False).returncode == 0
