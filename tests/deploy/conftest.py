"""The secrets that a deployment starts with, made as an operator makes them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from service.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    script = shutil.copy(ROOT / "deploy" / "make_secrets.sh", folder)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LLM_AUCTION": f"{sys.executable} -m service.cli",
    }
    subprocess.run([script], env=environment, check=True, capture_output=True, timeout=120)
    return folder / "secrets"


@pytest.fixture
def settings_of(
    secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, str]], Settings]:
    """What the service reads from a container's environment, with those secrets mounted."""

    def read(environment: Mapping[str, str]) -> Settings:
        for name in list(os.environ):
            if name == "REDIS_URL" or name.startswith("LLM_AUCTION_"):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            path = Path(value)
            is_secret = path.is_relative_to("/run/secrets")
            monkeypatch.setenv(name, str(secrets_dir / path.name) if is_secret else value)
        return load_settings({"http": {"host": "0.0.0.0"}})

    return read
