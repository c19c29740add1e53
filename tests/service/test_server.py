"""A start that fails: told in a sentence, before anything is prepared."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service import server
from service.settings import load_settings


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ({"signing": {"keys_file": "wrong", "secret_file": "wrong"}}, ["line 1", "64 hex digits"]),
        ({"signing": {"keys_file": "nowhere"}}, ["nowhere cannot be read (No such file"]),
        ({"auth": {"keys_file": "wrong"}}, ["wrong, line 1"]),
        ({"state_dir": Path("wrong")}, ["wrong", "--state-dir"]),
        ({"store": {"url": "rediss://h?ssl_ca_certs=nowhere"}}, ["nowhere is not a file"]),
    ],
)
def test_wrong_files_are_told(
    group: dict[str, Any],
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "configure_logs", lambda level: None)
    (tmp_path / "wrong").write_text("nonsense\n")
    overrides: dict[str, Any] = {
        "engine": {"kind": "remote", "url": "http://127.0.0.1:1"},
        "http": {"port": 0},
        "state_dir": tmp_path / "state",
        **group,
    }
    assert server.run(load_settings(overrides)) == 1
    said = capsys.readouterr().err
    assert "Not started" in said
    for words in told:
        assert words in " ".join(said.split())
    assert "Traceback" not in said


@pytest.mark.parametrize("has_keys", [False, True])
def test_the_command_to_paste_has_a_key_where_one_is_needed(
    has_keys: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    server._announce(Console(stderr=True), "http://127.0.0.1:8000", 12.3, has_keys)
    said = capsys.readouterr().err
    assert "curl -s http://127.0.0.1:8000/respond" in said
    assert ("Authorization: Bearer <key>" in said) is has_keys
