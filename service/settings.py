"""Configuration: nested, frozen, read from the environment, every error reported at start.

A variable is `LLM_AUCTION_` + group + `__` + field, for example `LLM_AUCTION_HTTP__PORT=9000`.
`REDIS_URL` is read as `LLM_AUCTION_STORE__URL` where that is not set.
"""

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from models.contract.prompt import Layout
from service.store_url import StoreUrl

PREFIX = "LLM_AUCTION_"


class SettingsError(Exception):
    """The configuration is wrong; the message lists every error, one a line."""


class Group(BaseModel):
    """A part of the settings. Unknown names are errors, so that a typing error is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(Group):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    public_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where browsers reach the service, for click addresses; none: as requests say",
    )
    max_body_bytes: int = Field(1 << 20, ge=1024)
    max_import_bytes: int = Field(64 << 20, ge=1024)
    drain_s: int = Field(30, ge=0, description="How long a stop waits for running requests")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class StoreSettings(Group):
    url: str | None = Field(
        None,
        repr=False,
        description="Any Redis-protocol server, Sentinels or Cluster; none: the embedded Valkey",
    )
    password_file: Path | None = Field(
        None, description="Holds the password, for a url that has none: a secret by file"
    )
    namespace: str = Field("llm-auction", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    timeout_ms: int = Field(250, ge=1, le=60_000)
    breaker_failures: int = Field(3, ge=1)
    breaker_cooldown_ms: int = Field(1_000, ge=1)
    fsync: Literal["everysec", "always"] = "everysec"
    demo_ads: bool | None = Field(
        None,
        description="Load the demo ads into a catalogue that never held an ad; none: only where"
        " Valkey is embedded",
    )

    @property
    def wants_demo_ads(self) -> bool:
        """Whether an empty catalogue is filled. Elsewhere one may be a loss that must be seen."""
        return self.url is None if self.demo_ads is None else self.demo_ads

    @model_validator(mode="before")
    @classmethod
    def with_password(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Put the password of `password_file` into `url`, which may name a user."""
        url, path = given.get("url"), given.get("password_file")
        if path is None:
            return given
        if not isinstance(url, str):
            raise ValueError("password_file needs the url of the store that it is for")
        parts = urlsplit(url)
        user, _, hosts = parts.netloc.rpartition("@")
        if ":" in user:
            raise ValueError("url holds a password already: leave out password_file")
        try:
            password = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as unreadable:
            raise ValueError(f"password_file {path} cannot be read") from unreadable
        netloc = f"{user}:{quote(password, safe='')}@{hosts}"
        return {**given, "url": urlunsplit(parts._replace(netloc=netloc))}

    @field_validator("url")
    @classmethod
    def is_store_url(cls, url: str | None) -> str | None:
        """Reject what names no store."""
        if url is not None:
            StoreUrl.parse(url)
        return url


class EngineSettings(Group):
    kind: Literal["vllm", "remote"] = "vllm"
    model: str | None = Field(
        None, description="Name or directory; none: the default for the device"
    )
    url: str | None = Field(None, description="Base URL of a vLLM server, for kind=remote")
    api_key: str | None = Field(None, repr=False)
    max_model_len: int | None = Field(
        None,
        ge=256,
        description="Tokens of context; none: 8192 where the model has as many, and what a server"
        " tells of itself",
    )
    max_num_seqs: int | None = Field(
        None,
        ge=1,
        description="Answers that are written at once, others wait; none: 32 on a CPU, vLLM's own"
        " choice on a GPU",
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="Further vLLM engine arguments, as JSON"
    )


class LimitSettings(Group):
    max_requests: int = Field(64, ge=1, description="Answers in the making at once; more get a 503")
    retry_after_ms: int = Field(1_000, ge=1)
    deadline_ms: int = Field(
        60_000, ge=1, le=600_000, description="Deadline of a request that names none"
    )
    max_tokens: int = Field(2_048, ge=1, description="The most that a request may ask for")


class GenerationSettings(Group):
    """What a request gets that does not say otherwise. Sampling is the source's (section 5.1)."""

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.8, gt=0, le=1)
    top_k: int = Field(20, ge=0)
    max_tokens: int = Field(512, ge=1)
    max_ads: int = Field(3, ge=0, le=10)
    layout: Layout = Layout.INLINE


class AuctionSettings(Group):
    """Money: one currency, integer micros inside. Days of budgets and reports are `timezone`'s."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217")
    floor: Decimal = Field(Decimal(0), ge=0, le=1_000_000, decimal_places=6)
    charge_ttl_s: int = Field(
        86_400, ge=1, description="How long after the answer a click is charged"
    )
    idempotency_ttl_s: int = Field(86_400, ge=1)
    event: Literal["click", "impression"] = Field("click", description="What is charged for")
    pctr: float | None = Field(
        None, gt=0, le=1, description="Fixed click rate; prices an impression at bid × pctr"
    )
    timezone: str = Field("UTC", description="IANA name; when a day's budget begins anew")
    pacing: Literal["none", "even"] = Field("none", description="Spread daily budgets over the day")
    frequency_cap: int | None = Field(
        None, ge=1, description="The most times that one user is shown one ad in the window"
    )
    frequency_window_s: int = Field(86_400, ge=1)
    holdout_share: float = Field(0, ge=0, le=1, description="Users (by hash) who get no ads")

    @field_validator("timezone")
    @classmethod
    def is_known(cls, timezone: str) -> str:
        """Reject what is no IANA time zone."""
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError) as unknown:
            raise ValueError(f"{timezone} is no IANA time zone, e.g. Europe/Berlin") from unknown
        return timezone


class ReceiptSettings(Group):
    retention_s: int = Field(30 * 86_400, ge=60, description="How long receipts are kept")
    with_text: bool = Field(False, description="Keep query and answer too, not just their hashes")


class AuthSettings(Group):
    keys_file: Path | None = Field(None, description="API keys, one a line: name scopes sha256")


class SigningSettings(Group):
    """Files for processes that share no state directory; without them it has its own."""

    keys_file: Path | None = Field(
        None, description="Keys of click tokens and receipts, one a line: id secret"
    )
    secret_file: Path | None = Field(
        None, description="The deployment's secret: 32 bytes, or 64 hex digits"
    )


class LogSettings(Group):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    state_dir: Path = Path("state")
    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    generation: GenerationSettings = GenerationSettings()
    auction: AuctionSettings = AuctionSettings()
    receipts: ReceiptSettings = ReceiptSettings()
    auth: AuthSettings = AuthSettings()
    signing: SigningSettings = SigningSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def is_coherent(self) -> Self:
        if not self.http.is_loopback and self.auth.keys_file is None:
            raise ValueError(
                f"http.host {self.http.host} can be reached from other machines, so API keys are"
                " needed: make one with `llm-auction keys new`, name its file in"
                f" {PREFIX}AUTH__KEYS_FILE, or bind to 127.0.0.1"
            )
        if self.engine.kind == "remote" and not self.engine.url:
            raise ValueError(
                f"engine.kind remote needs {PREFIX}ENGINE__URL, a vLLM server's address"
            )
        if self.auth.keys_file is not None and not self.auth.keys_file.is_file():
            raise ValueError(f"auth.keys_file {self.auth.keys_file} is not a file")
        if self.generation.max_tokens > self.limits.max_tokens:
            raise ValueError("generation.max_tokens must not exceed limits.max_tokens")
        if self.auction.event == "impression" and self.auction.pctr is None:
            raise ValueError("auction.event impression needs auction.pctr, a click rate")
        return self


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the environment, with `overrides` (nested by group) on top.

    Raises SettingsError that names every wrong or unknown setting.
    """
    problems = [
        f"{name}: there is no such setting"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and not _is_known(name)
    ]
    merged: dict[str, Any] = {
        group: dict(fields) if isinstance(fields, Mapping) else fields
        for group, fields in (overrides or {}).items()
    }
    if "REDIS_URL" in os.environ and f"{PREFIX}STORE__URL" not in os.environ:
        merged.setdefault("store", {}).setdefault("url", os.environ["REDIS_URL"])
    try:
        settings = Settings(**merged)
    except ValidationError as invalid:
        problems += [
            f"{'.'.join(map(str, error['loc'])) or 'settings'}: {error['msg']}"
            for error in invalid.errors(include_input=False, include_url=False)
        ]
    except UnreadableSetting as unreadable:
        problems += [f"{name}: is no valid JSON" for name in _no_json()] or [str(unreadable)]
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _no_json() -> list[str]:
    """The variables that look like JSON, or stand for a whole group, and cannot be read as it."""
    found = []
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIX) and ("__" not in name or value.lstrip()[:1] in ("{", "[")):
            try:
                json.loads(value)
            except ValueError:
                found.append(name)
    return found


def _is_known(variable: str) -> bool:
    group = variable.removeprefix(PREFIX).split("__")[0].lower()
    return group in Settings.model_fields or variable in CLIENT_VARIABLES


CLIENT_VARIABLES = frozenset({f"{PREFIX}URL", f"{PREFIX}API_KEY"})
"""Read by the command-line clients, not by the server."""
