"""API keys: made, kept hashed, found in constant time, and what they allow."""

from pathlib import Path

import pytest

from service.api.auth import KeysFileError, Scope, find_key, new_key, read_keys, scope_needed


class TestKeys:
    def test_a_secret_is_found_by_its_hash_alone(self, tmp_path: Path) -> None:
        secret, key = new_key("frontend", frozenset({Scope.RESPOND}))
        file = tmp_path / "keys"
        file.write_text(f"# ours\n\n{key.as_line()}\n")
        assert secret not in file.read_text()
        found = find_key(read_keys(file), f"Bearer {secret}")
        assert found == key

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic {secret}", "{secret}"])
    def test_anything_else_is_nobody(self, header: str) -> None:
        secret, key = new_key("frontend", frozenset({Scope.RESPOND}))
        assert find_key((key,), header.format(secret=secret)) is None

    @pytest.mark.parametrize(
        "line", ["one", "a b c", f"a respond {'g' * 64}", f"a everything {'0' * 64}"]
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "keys"
        file.write_text(f"# first\n{line}\n")
        with pytest.raises(KeysFileError, match="line 2"):
            read_keys(file)

    def test_an_empty_file_is_not_an_open_door(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text("# nothing\n")
        with pytest.raises(KeysFileError):
            read_keys(file)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(KeysFileError, match="keys cannot be read"):
            read_keys(tmp_path / "keys")


class TestScopes:
    def test_admin_covers_everything_and_respond_only_answers(self) -> None:
        _, admin = new_key("a", frozenset({Scope.ADMIN}))
        _, frontend = new_key("f", frozenset({Scope.RESPOND}))
        assert all(admin.allows(scope) for scope in Scope)
        assert [scope for scope in Scope if frontend.allows(scope)] == [Scope.RESPOND]

    def test_a_path_that_nobody_thought_of_needs_admin(self) -> None:
        assert scope_needed("GET", "/anything/new") is Scope.ADMIN
        assert scope_needed("GET", "/healthz") is None
