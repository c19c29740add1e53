"""deploy/ray/serve.yaml is read by the service as meant, and fits its own limits."""

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from service.settings import Settings

CONFIG = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "ray" / "serve.yaml").read_text())
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


def test_its_application_is_there() -> None:
    module, _, name = APPLICATION["import_path"].partition(":")
    source = Path(__file__).parents[3].joinpath(*module.split(".")).with_suffix(".py").read_text()
    assert f"\n{name} = serve.deployment({DEPLOYMENT['name']}" in source
