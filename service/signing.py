"""What a deployment keeps secret: the keys of click tokens and receipts, and one secret.

Keys, in a file: one a line, `id secret`: 1 to 8 of `[a-z0-9]`, and 64 hex digits. Blank lines and
lines that begin with `#` are skipped. The first key signs; all are believed.

To rotate: put a new line (`llm-auction receipt new-key`) at the end and restart every process, so
that all believe it; move it to the top and restart again; take the old line out once its tokens
have expired and its receipts need no more checking. A key that leaked goes out at once: the tokens
that it signed are then forged ones.

The deployment's secret, in a file: 32 bytes, or the same as 64 hex digits. It orders candidates,
holds users out and hides them behind pseudonyms; another secret makes other pseudonyms.

Both are made in the state directory at the first start, readable by their owner only. Processes
that do not share it need the same two files, named in the settings; named files are never made.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from service.auction.signing_key import SigningKey, SigningKeys

FILE_NAME = "signing_keys"
SECRET_FILE_NAME = "secret"
_SECRET_BYTES = 32
_HEADER = "# id secret: the first key signs, all are believed; keep it secret\n"


class SigningKeysError(ValueError):
    """A file is missing, or does not hold what it should; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """`deployment`: 32 bytes."""

    keys: SigningKeys
    deployment: bytes = field(repr=False)


def load_secrets(
    state_dir: Path, keys_file: Path | None = None, secret_file: Path | None = None
) -> Secrets:
    """What the named files hold, or else those of the state directory, made if missing.

    Raises SigningKeysError that tells all that is wrong with both, one a line.
    """
    problems: list[str] = []
    keys: SigningKeys | None = None
    secret = b""
    try:
        keys = load_keys(state_dir, keys_file)
    except SigningKeysError as wrong:
        problems.append(str(wrong))
    try:
        secret = load_secret(state_dir, secret_file)
    except SigningKeysError as wrong:
        problems.append(str(wrong))
    if keys is None or problems:
        raise SigningKeysError("\n".join(problems))
    return Secrets(keys, secret)


def load_keys(state_dir: Path, file: Path | None = None) -> SigningKeys:
    """The keys of `file`, which must be there, or else of the state directory, made if missing.

    Raises SigningKeysError with the line's number.
    """
    path = file or state_dir / FILE_NAME
    if file is None:
        _make(path, lambda: f"{_HEADER}{new_line()}\n".encode())
    try:
        lines = _read(path).decode().splitlines()
    except UnicodeDecodeError as unreadable:
        raise SigningKeysError(f"{path} cannot be read: it is not UTF-8") from unreadable
    keys = tuple(
        _read_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    )
    if not keys:
        raise SigningKeysError(f"{path} holds no key")
    if len({key.key_id for key in keys}) < len(keys):
        raise SigningKeysError(f"{path} holds two keys of one id")
    return SigningKeys(keys[0], keys)


def load_secret(state_dir: Path, file: Path | None = None) -> bytes:
    """The 32 bytes of `file`, which must be there, or else of the state directory, made if missing.

    Raises SigningKeysError.
    """
    path = file or state_dir / SECRET_FILE_NAME
    if file is None:
        _make(path, lambda: secrets.token_bytes(_SECRET_BYTES))
    raw = _read(path)
    if len(raw) == _SECRET_BYTES:
        return raw
    try:
        secret = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        secret = b""  # the error is left behind: it might quote the secret
    if len(secret) != _SECRET_BYTES:
        digits = 2 * _SECRET_BYTES
        raise SigningKeysError(f"{path} must hold {_SECRET_BYTES} bytes, or {digits} hex digits")
    return secret


def new_line() -> str:
    """A fresh key as its line in the file, without the line's end."""
    return f"{secrets.token_hex(3)} {secrets.token_hex(_SECRET_BYTES)}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as unreadable:
        raise SigningKeysError(f"{path} cannot be read ({unreadable.strerror})") from unreadable


def _make(path: Path, content: Callable[[], bytes]) -> None:
    """The file, where there is none; of processes that start together, one makes it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fresh.touch(mode=0o600)
    try:
        fresh.write_bytes(content())
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was first, and its file is whole
    finally:
        fresh.unlink()


def _read_line(line: str, place: str) -> SigningKey:
    try:
        key_id, secret = line.split()
        key = SigningKey(key_id, bytes.fromhex(secret))
    except ValueError:
        key = None  # the error is left behind: it might quote the secret
    if key is None or len(key.secret) != _SECRET_BYTES:
        told = f"1 to 8 of a-z and 0-9, and {2 * _SECRET_BYTES} hex digits"
        raise SigningKeysError(f"{place}: must be `id secret`, {told}")
    return key
