"""`llm-auction align`: help that teaches, and errors that say what is allowed."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app

runner = CliRunner()


@pytest.mark.parametrize("command", ["all", "warm-start", "pctr", "sample", "dpo", "ship", "card"])
def test_every_stage_explains_itself(command: str) -> None:
    result = runner.invoke(app, ["align", command, "--help"])

    assert result.exit_code == 0
    assert "--run" in result.output


def test_an_unknown_preset_is_refused_by_name(tmp_path: Path) -> None:
    result = runner.invoke(app, ["align", "all", "--preset", "huge", "--run", str(tmp_path)])

    assert result.exit_code == 2
    assert "small" in result.output
    assert "paper" in result.output


def test_shipping_needs_something_trained(tmp_path: Path) -> None:
    result = runner.invoke(
        app, ["align", "ship", str(tmp_path / "out"), "--run", str(tmp_path / "run")]
    )

    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "has not come to its end" in " ".join(result.output.replace("│", " ").split())


def test_help_imports_no_torch(pytestconfig: pytest.Config) -> None:
    script = "import sys, service.cli; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script]

    assert subprocess.run(command, cwd=pytestconfig.rootpath, check=False).returncode == 0
