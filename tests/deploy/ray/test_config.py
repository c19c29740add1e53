"""deploy/ray/serve.yaml is read by the service as meant, and fits its own limits."""

import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from loadtest import replicas
from loadtest.own_service import OwnService
from service.settings import Settings

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
[APPLICATION] = CONFIG["applications"]
[DEPLOYMENT] = APPLICATION["deployments"]


def test_its_settings_are_understood_and_want_keys(
    settings_of: Callable[[Mapping[str, str]], Settings],
) -> None:
    settings = settings_of(APPLICATION["runtime_env"]["env_vars"])
    assert settings.auth.keys_file is not None
    assert not settings.http.is_loopback
    assert settings.store.url is not None
    assert settings.signing.keys_file is not None


def test_a_replica_gets_no_more_than_it_takes_and_time_to_finish() -> None:
    settings = Settings()
    assert DEPLOYMENT["max_ongoing_requests"] <= settings.limits.max_requests
    assert DEPLOYMENT["graceful_shutdown_timeout_s"] > settings.http.drain_s
    target = DEPLOYMENT["autoscaling_config"]["target_ongoing_requests"]
    assert target < DEPLOYMENT["max_ongoing_requests"]


def test_ray_is_installed_as_pinned_and_replaces_nothing_locked() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    [pinned] = extras["ray"]
    for text in ((ROOT / "deploy" / "README.md").read_text(), replicas.__doc__ or ""):
        lines = [line for line in text.splitlines() if "pip install" in line and "ray" in line]
        assert lines
        for line in lines:
            [lock] = re.findall(r"-c (requirements/\w+\.lock)", line)
            assert (ROOT / lock).is_file()
            assert f"'{pinned}'" in line


class TestApplication:
    @pytest.fixture
    def options(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the application of the file asks Ray for, from a Ray that only takes it down."""
        ray, options = ModuleType("ray"), dict[str, Any]()

        def deployment(replica: type, **given: Any) -> Any:
            options.update(given, name=replica.__name__)
            return SimpleNamespace(bind=object)

        ray.serve = SimpleNamespace(  # type: ignore[attr-defined]
            Application=object, ingress=lambda: lambda replica: replica, deployment=deployment
        )
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
        module, _, name = APPLICATION["import_path"].partition(":")
        runpy.run_module(module)[name](APPLICATION["args"])
        return options

    def test_is_the_deployment_that_the_file_sets_up(self, options: dict[str, Any]) -> None:
        assert options["name"] == DEPLOYMENT["name"]

    def test_a_replica_has_its_resources_and_its_environment(self, options: dict[str, Any]) -> None:
        actor = options["ray_actor_options"]
        assert actor.items() >= {"num_cpus": 2}.items()
        assert actor["runtime_env"]["env_vars"]["VLLM_NO_USAGE_STATS"] == "1"

    def test_the_file_does_not_replace_them(self) -> None:
        assert "ray_actor_options" not in DEPLOYMENT

    def test_the_load_test_does_not_replace_them_either(self, tmp_path: Path) -> None:
        config = replicas.configuration(OwnService(tmp_path, "http://127.0.0.1:9"), 8123, {}, {})
        [application] = config["applications"]
        assert application["import_path"] == APPLICATION["import_path"]
        assert set(application["args"]) == {"num_cpus"}
        assert all("ray_actor_options" not in replica for replica in application["deployments"])
