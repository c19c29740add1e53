"""deploy/compose.yaml: read by the service as meant, and closed to other machines by default."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.signing import load_secrets

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def defaulted(text: str) -> str:
    """`text` with each variable's default."""
    return _VARIABLE.sub(r"\2", text)


@pytest.mark.parametrize("name", ["service-cpu", "service-gpu"])
class TestService:
    def test_its_settings_are_understood(
        self, name: str, settings_of: Callable[[Mapping[str, str]], Settings], secrets_dir: Path
    ) -> None:
        environment = SERVICES[name]["environment"]
        settings = settings_of({key: defaulted(value) for key, value in environment.items()})
        password = (secrets_dir / "store_password").read_text().strip()
        assert settings.store.url == f"redis://:{password}@store:6379/0"

    def test_it_signs_with_what_is_made_for_all(
        self,
        name: str,
        settings_of: Callable[[Mapping[str, str]], Settings],
        secrets_dir: Path,
        tmp_path: Path,
    ) -> None:
        environment = SERVICES[name]["environment"]
        signing = settings_of({key: defaulted(value) for key, value in environment.items()}).signing
        assert signing.keys_file == secrets_dir / "signing_keys"
        assert signing.secret_file == secrets_dir / "signing_secret"
        assert len(load_secrets(tmp_path, signing.keys_file, signing.secret_file).deployment) == 32

    def test_has_every_secret_that_its_settings_name(self, name: str) -> None:
        paths = [Path(str(value)) for value in SERVICES[name]["environment"].values()]
        named = {path.name for path in paths if path.parent == Path("/run/secrets")}
        assert named == set(SERVICES[name]["secrets"])

    def test_a_stop_outlasts_the_drain(self, name: str) -> None:
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > Settings().http.drain_s + 10

    def test_its_profile_is_its_own(self, name: str) -> None:
        assert SERVICES[name]["profiles"] == [name.removeprefix("service-")]


def test_the_store_keeps_money_and_refuses_what_it_has_no_room_for() -> None:
    options = [line.split() for line in defaulted(SERVICES["store"]["command"][-1]).splitlines()]
    assert ["appendonly", "yes"] in options
    assert ["maxmemory", "2gb"] in options
    assert ["maxmemory-policy", "noeviction"] in options


@pytest.mark.parametrize("name", SERVICES)
class TestEveryService:
    def test_has_no_privileges_and_a_read_only_root(self, name: str) -> None:
        service = SERVICES[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]

    def test_is_published_on_loopback_alone(self, name: str) -> None:
        for port in SERVICES[name].get("ports", ()):
            assert defaulted(port).startswith("127.0.0.1:")

    def test_has_the_files_and_secrets_that_it_mounts(self, name: str, secrets_dir: Path) -> None:
        for volume in SERVICES[name].get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists()
        for secret in SERVICES[name].get("secrets", ()):
            assert (secrets_dir / Path(COMPOSE["secrets"][secret]["file"]).name).stat().st_mode & 4


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is missing")
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_understands_it(profile: str) -> None:
    run = subprocess.run(
        ["docker-compose", "config", "--quiet"],
        cwd=DEPLOY,
        env={**os.environ, "COMPOSE_PROFILES": profile},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
