"""deploy/make_secrets.sh as it is called: from the repository's root, by relative paths."""

import os
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from service.api.auth import Scope, find_key, read_keys

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A root with the script and a command, as in the README."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "make_secrets.sh", tmp_path / "deploy")
    command = tmp_path / ".venv" / "bin" / "llm-auction"
    command.parent.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {python} -m service.cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def make_secrets(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["deploy/make_secrets.sh"],
        cwd=checkout,
        env={**os.environ, "LLM_AUCTION": ".venv/bin/llm-auction"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def made(checkout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (checkout / "deploy" / "secrets").iterdir()}


def test_makes_all_of_them_once(checkout: Path) -> None:
    first = make_secrets(checkout)
    secrets = made(checkout)

    assert first.returncode == 0, first.stderr
    assert "key for chat front ends" in first.stdout
    assert "key for operators" in first.stdout
    assert set(secrets) == {
        "api_keys", "metrics_key", "store_password", "grafana_password", "signing_keys",
        "signing_secret",
    }  # fmt: skip
    assert all(secrets.values())
    assert make_secrets(checkout).stdout == ""
    assert made(checkout) == secrets


def test_the_key_for_metrics_is_a_header_as_it_stands(checkout: Path) -> None:
    make_secrets(checkout)
    secrets = made(checkout)

    key = secrets["metrics_key"].decode()
    [scraper] = [line for line in secrets["api_keys"].splitlines() if line.startswith(b"prom")]
    assert key.isprintable()
    assert scraper.split()[1:] == [b"metrics", sha256(key.encode()).hexdigest().encode()]
    assert secrets["signing_keys"].endswith(b"\n")  # the next key is a line of its own


def test_keys_that_are_shown_are_those_of_the_service(checkout: Path) -> None:
    shown = make_secrets(checkout).stdout.splitlines()
    keys = read_keys(checkout / "deploy" / "secrets" / "api_keys")

    found = [find_key(keys, f"Bearer {line}") for line in shown]
    assert [(key.name, key.scopes) for key in found if key] == [
        ("chat", {Scope.RESPOND}),
        ("operator", {Scope.ADMIN}),
    ]


def test_a_failure_leaves_nothing_half_made(checkout: Path) -> None:
    command = checkout / ".venv" / "bin" / "llm-auction"
    works = command.read_text()
    command.write_text("#!/bin/sh\necho half\nexit 1\n")
    failed = make_secrets(checkout)
    assert failed.returncode != 0
    assert set(made(checkout)) == {"store_password", "grafana_password", "signing_secret"}

    command.write_text(works)
    assert make_secrets(checkout).returncode == 0
    assert b"half" not in b"".join(made(checkout).values())
