"""`llm-auction keys`: keys are added to a file that people edit as well."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.api.auth import read_keys
from service.cli_keys import app


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_new_key_has_a_line_of_its_own(tmp_path: Path, end: str) -> None:
    file = tmp_path / "keys"
    for name in ("chat", "operator"):
        made = CliRunner().invoke(app, ["new", name, "--scope", "respond", "--file", str(file)])
        assert made.exit_code == 0
        file.write_text(file.read_text().removesuffix("\n") + end)
    assert [key.name for key in read_keys(file)] == ["chat", "operator"]


@pytest.mark.parametrize("name", ["#chat", "two words", ""])
def test_a_name_that_the_file_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    given = ["new", name, "--scope", "respond", "--file", str(tmp_path / "keys")]
    assert CliRunner().invoke(app, given).exit_code == 2
    assert not (tmp_path / "keys").exists()
