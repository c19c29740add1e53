"""Who may call what: API keys with scopes, stored hashed, compared in constant time.

A keys file holds one key a line, `name scopes sha256` (scopes joined by commas). Keys are 256
random bits, so a plain SHA-256 is enough: there is nothing to guess. With no keys configured the
service only binds to loopback (see `service/settings.py`) and every caller may do everything.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fastapi import FastAPI


class Scope(StrEnum):
    """What a key allows: `respond` asks for answers, `admin` everything, `metrics` scraping."""

    RESPOND = "respond"
    ADMIN = "admin"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    scopes: frozenset[Scope]
    digest: str

    def allows(self, scope: Scope) -> bool:
        """Whether this key covers `scope`; `admin` covers all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def as_line(self) -> str:
        """The key's line in a keys file."""
        return f"{self.name} {','.join(sorted(self.scopes))} {self.digest}"


ANYONE = ApiKey("anonymous", frozenset({Scope.ADMIN}), "")
"""The caller of a service without keys."""


class KeysFileError(ValueError):
    """The keys file cannot be read, or has a line that is not `name scopes sha256`."""


def new_key(name: str, scopes: frozenset[Scope]) -> tuple[str, ApiKey]:
    """A fresh secret, to be shown once, and the record to keep of it."""
    secret = f"la_{secrets.token_urlsafe(32)}"
    return secret, ApiKey(name, scopes, _digest(secret))


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a keys file; blank lines and lines that begin with `#` are skipped.

    Raises KeysFileError, with the line's number or why the file cannot be read.
    """
    keys = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise KeysFileError(f"{path} cannot be read ({unreadable})") from unreadable
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            keys.append(_read_line(line, f"{path}, line {number}"))
    if not keys:
        raise KeysFileError(f"{path} holds no key: add one with `llm-auction keys new`")
    return tuple(keys)


def _read_line(line: str, place: str) -> ApiKey:
    try:
        name, scopes, digest = line.split()
        key = ApiKey(name, frozenset(Scope(scope) for scope in scopes.split(",")), digest)
    except ValueError as wrong:
        raise KeysFileError(f"{place}: must be `name scopes sha256` ({wrong})") from wrong
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise KeysFileError(f"{place}: the third word must be a SHA-256 in lower-case hex")
    return key


def find_key(keys: tuple[ApiKey, ...], authorization: str) -> ApiKey | None:
    """The key whose secret an `Authorization: Bearer …` header holds, or None.

    Looks at every key whatever matches, so that time tells nothing.
    """
    kind, _, secret = authorization.partition(" ")
    digest = _digest(secret.strip())
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found if kind.lower() == "bearer" else None


def scope_needed(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None where anybody may. Unlisted paths need `admin`."""
    if path in {"/healthz", "/readyz", "/openapi.json", "/docs"} or path.startswith("/c/"):
        return None
    if path == "/metrics":
        return Scope.METRICS
    if path in {"/respond", "/v1/clicks"}:
        return Scope.RESPOND
    return Scope.ADMIN


def document_keys(app: FastAPI) -> None:
    """Have the OpenAPI say which operations need a key."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if scope_needed(method.upper(), path) is not None:
                    operation["security"] = [{"apiKey": []}]
        schemes = schema["components"].setdefault("securitySchemes", {})
        schemes["apiKey"] = {"type": "http", "scheme": "bearer"}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
