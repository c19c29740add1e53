"""A world in a folder: users, queries and ads as JSON lines, and a manifest that vouches for them.

users.jsonl    user_id, info, interests, split
queries.jsonl  query_id, user_id, text, category (null: no ad serves it, or nobody knows)
ads.jsonl      ad_id, title, category, description
manifest.json  format, versions, how it was built, counts, and the SHA-256 of each file
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from models.contract.prompt import CONTRACT_VERSION, Profile
from models.simulation.nouns import Ad, Query, Split, User
from models.simulation.world import World

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_FILES = ("users.jsonl", "queries.jsonl", "ads.jsonl")


class SavedWorldError(Exception):
    """A folder cannot be read, or written, as a world; the message says why and what to do."""


def save_world(
    world: World, folder: Path, built: Mapping[str, Any], *, replace: bool = False
) -> None:
    """Write `world` into `folder`, all of it or nothing; its parents are made.

    built: how the world came about (seed, options, sources), kept in the manifest. Without
    `replace`, a folder that is there already is an error; with it, only one that is no world.
    Raises SavedWorldError, OSError.
    """
    if folder.exists() and not (replace and (folder / MANIFEST).is_file()):
        known = "--force replaces it" if (folder / MANIFEST).is_file() else "it is not a world"
        raise SavedWorldError(f"{folder} is there already, and {known}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        for name, rows in zip(_FILES, _rows(world), strict=True):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            _write(new / name, "".join(lines))
        _write(new / MANIFEST, json.dumps(_manifest(world, new, built), indent=2) + "\n")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def load_world(folder: Path) -> World:
    """Read the world in `folder`.

    Raises SavedWorldError where a file is missing, is not what the manifest vouches for, or does
    not make a world.
    """
    manifest = read_manifest(folder)
    for name in _FILES:
        if _sha256(folder / name) != manifest["sha256"].get(name):
            raise SavedWorldError(
                f"{folder / name} is not what {MANIFEST} vouches for: build the world anew"
            )
    users, queries, ads = (_read(folder / name) for name in _FILES)
    try:
        return World(
            tuple(_user(row) for row in users),
            tuple(_query(row) for row in queries),
            tuple(Ad(**row) for row in ads),
            {row["query_id"]: tuple(row["near"]) for row in queries if "near" in row},
        )
    except (TypeError, KeyError, ValueError) as error:
        raise SavedWorldError(f"{folder} does not hold a world: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the world in `folder`. Raises SavedWorldError."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except FileNotFoundError as error:
        raise SavedWorldError(
            f"There is no world in {folder}: `llm-auction simulate build` makes one"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SavedWorldError(f"{path} is damaged: build the world anew") from error
    if found != FORMAT:
        raise SavedWorldError(f"{path} has format {found}; this version reads {FORMAT}")
    return manifest


def _rows(world: World) -> tuple[Iterable[dict[str, Any]], ...]:
    users = (
        {"user_id": user.user_id, **asdict(user.profile), "split": user.split.value}
        for user in world.users
    )
    queries = (
        asdict(query)
        | ({"near": world.near[query.query_id]} if query.query_id in world.near else {})
        for query in world.queries
    )
    return users, queries, map(asdict, world.ads)


def _user(row: dict[str, Any]) -> User:
    profile = Profile(row["info"], tuple(row["interests"]))
    return User(row["user_id"], profile, Split(row["split"]))


def _query(row: dict[str, Any]) -> Query:
    return Query(row["query_id"], row["user_id"], row["text"], row["category"])


def _manifest(world: World, folder: Path, built: Mapping[str, Any]) -> dict[str, Any]:
    held_out = sum(user.split is Split.TEST for user in world.users)
    return {
        "format": FORMAT,
        "versions": {
            "llm-auction": importlib.metadata.version("llm-auction"),
            "contract": CONTRACT_VERSION,
        },
        "built": dict(built),
        "counts": {
            "users": len(world.users),
            "test_users": held_out,
            "queries": len(world.queries),
            "queries_without_category": sum(query.category is None for query in world.queries),
            "ads": len(world.ads),
            "categories": len({ad.category for ad in world.ads}),
        },
        "sha256": {name: _sha256(folder / name) for name in _FILES},
    }


def _write(path: Path, text: str) -> None:
    """Write `text` so that it is on disk before the folder gets its name."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise SavedWorldError(f"{path} is missing: build the world anew") from error
