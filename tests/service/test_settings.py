"""Configuration: where it comes from, and that every error is reported."""

from pathlib import Path

import pytest

from service.settings import SettingsError, load_settings


def test_defaults_bind_to_loopback_and_need_nothing() -> None:
    settings = load_settings()
    assert settings.http.is_loopback
    assert settings.store.url is None


def test_the_environment_and_then_the_overrides_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_AUCTION_HTTP__PORT", "9000")
    monkeypatch.setenv("LLM_AUCTION_HTTP__DRAIN_S", "5")
    settings = load_settings({"http": {"port": 9100}})
    assert (settings.http.port, settings.http.drain_s) == (9100, 5)


def test_redis_url_is_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/1")
    assert load_settings().store.url == "redis://elsewhere:6379/1"
    monkeypatch.setenv("LLM_AUCTION_STORE__URL", "redis://here:6379")
    assert load_settings().store.url == "redis://here:6379"


def test_demo_ads_are_for_the_embedded_store_unless_asked_for() -> None:
    elsewhere = {"url": "redis://elsewhere:6379"}
    assert load_settings().store.wants_demo_ads
    assert not load_settings({"store": {"demo_ads": False}}).store.wants_demo_ads
    assert not load_settings({"store": elsewhere}).store.wants_demo_ads
    assert load_settings({"store": {**elsewhere, "demo_ads": True}}).store.wants_demo_ads


@pytest.mark.parametrize(
    ("url", "with_password"),
    [
        ("redis://store:6379/0", "redis://:p%40ss%2F1@store:6379/0"),
        ("redis+sentinel://s1,s2/main", "redis+sentinel://:p%40ss%2F1@s1,s2/main"),
        ("rediss://app@store:6379/0", "rediss://app:p%40ss%2F1@store:6379/0"),
        ("rediss://store?ssl_ca_certs=/a@b", "rediss://:p%40ss%2F1@store?ssl_ca_certs=/a@b"),
        ("unix:///run/valkey.sock", "unix://:p%40ss%2F1@/run/valkey.sock"),
    ],
)
def test_the_stores_password_may_come_in_a_file(
    url: str, with_password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("p@ss/1\n")
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("LLM_AUCTION_STORE__PASSWORD_FILE", str(tmp_path / "password"))
    assert load_settings().store.url == with_password


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:x@store", "already"),
        ("redis://app:x@store", "already"),
        ("redis://store", "cannot be read"),
        (None, "needs the url"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_told(
    url: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings({"store": {"url": url, "password_file": tmp_path / "none"}})


def test_all_errors_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HTTP__PORT": "70000",
        "HTTP__PROT": "1",
        "LIMITS__DEADLINE_MS": "600001",
        "LIMIT__MAX_REQUESTS": "1",
        "ENGINE__KIND": "llama",
    }.items():
        monkeypatch.setenv(f"LLM_AUCTION_{name}", value)
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    for place in (
        "http.port",
        "http.prot",
        "limits.deadline_ms",
        "LLM_AUCTION_LIMIT__MAX_REQUESTS",
        "engine.kind",
    ):
        assert place in str(wrong.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "chat.example"])
def test_an_open_address_needs_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="keys new"):
        load_settings({"http": {"host": host}})
    keys = tmp_path / "keys"
    keys.touch()
    assert load_settings({"http": {"host": host}, "auth": {"keys_file": keys}})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_does_not(host: str) -> None:
    assert load_settings({"http": {"host": host}}).http.is_loopback


def test_a_remote_engine_needs_its_address() -> None:
    with pytest.raises(SettingsError, match="ENGINE__URL"):
        load_settings({"engine": {"kind": "remote"}})


@pytest.mark.parametrize(
    ("name", "value"), [("ENGINE__ARGS", "{enforce_eager: false}"), ("HTTP", "127.0.0.1")]
)
def test_a_setting_that_is_no_json_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LLM_AUCTION_{name}", value)
    with pytest.raises(SettingsError, match=f"^LLM_AUCTION_{name}: is no valid JSON$"):
        load_settings()
