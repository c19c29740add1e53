"""The file that holds the signing keys of click tokens and receipts.

One key a line, `id secret`: 1 to 8 of `[a-z0-9]`, and 64 hex digits. Blank lines and lines that
begin with `#` are skipped. The first key signs; all are believed. Made at the first start, readable
by its owner only. All processes of a deployment need the same file.

To rotate: put a new line (`llm-auction receipt new-key`) at the end and restart every process, so
that all believe it; move it to the top and restart again; take the old line out once its tokens
have expired and its receipts need no more checking. A key that leaked goes out at once: the tokens
that it signed are then forged ones.
"""

import os
import secrets
from pathlib import Path

from service.auction.signing_key import SigningKey, SigningKeys

FILE_NAME = "signing_keys"
_SECRET_BYTES = 32
_HEADER = "# id secret: the first key signs, all are believed; keep it secret\n"


class SigningKeysError(ValueError):
    """The file is missing, or has a line that is not `id secret`."""


def load_keys(state_dir: Path, file: Path | None = None) -> SigningKeys:
    """The keys of `file`, which must be there, or else of the state directory, made if missing.

    Raises SigningKeysError with the line's number.
    """
    path = file or state_dir / FILE_NAME
    if file is None and not path.exists():
        _make(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise SigningKeysError(f"{path} cannot be read ({unreadable})") from unreadable
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


def new_line() -> str:
    """A fresh key as its line in the file, without the line's end."""
    return f"{secrets.token_hex(3)} {secrets.token_hex(_SECRET_BYTES)}"


def _make(path: Path) -> None:
    """A file with one fresh key; of processes that start together, one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fresh.touch(mode=0o600)
    try:
        fresh.write_text(f"{_HEADER}{new_line()}\n", encoding="utf-8")
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
