"""`llm-auction evaluate`, as far as it goes without a model."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import a_run
from typer.testing import CliRunner, Result

from models.evaluation import cli
from models.evaluation.config import Study
from models.evaluation.mechanisms.catalogue import MECHANISMS
from models.evaluation.report.page import HTML, MARKDOWN


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


class TestRun:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--mechanism", "vickrey"), "vickrey is none of pretrained"),
            (("--mechanism", "aligned"), "--aligned"),
            (("--study", "trust"), "trust is none of efficiency"),
            (("--layout", "round"), "inline, split"),
        ],
    )
    def test_wrong_options_are_refused_before_anything_is_started(
        self, arguments: tuple[str, ...], said: str
    ) -> None:
        result = evaluate("run", *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.replace("│", " ").split())

    def test_the_help_names_every_mechanism_and_study_there_is(self) -> None:
        assert list(MECHANISMS) == list(cli.NAMES)
        assert list(Study) == list(cli.STUDIES)

    def test_the_command_line_loads_nothing_heavy(self) -> None:
        script = (
            "import service.cli, sys; "
            "print({'numpy', 'torch', 'vllm', 'matplotlib', 'scipy'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.strip() == "set()"


class TestReport:
    async def test_writes_both_files_and_prints_the_tables(self, tmp_path: Path) -> None:
        await a_run(tmp_path)
        result = evaluate("report", "--run", str(tmp_path))
        assert result.exit_code == 0
        assert (tmp_path / HTML).exists()
        assert (tmp_path / MARKDOWN).read_text() in result.output

    def test_says_what_is_missing(self, tmp_path: Path) -> None:
        result = evaluate("report", "--run", str(tmp_path))
        assert result.exit_code == 1
        assert "holds no outcomes" in result.output
