"""The files of keys and secret: made once, private, read strictly, shared and rotated by hand."""

import threading
from pathlib import Path

import pytest

from service import signing
from service.signing import (
    FILE_NAME,
    SECRET_FILE_NAME,
    SigningKeysError,
    load_keys,
    load_secret,
    load_secrets,
    new_line,
)


def test_the_first_start_makes_a_private_key_and_later_ones_keep_it(tmp_path: Path) -> None:
    first = load_keys(tmp_path / "state")
    assert load_keys(tmp_path / "state") == first
    assert len(first.current.secret) == 32
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE_NAME]


def test_deployments_have_different_keys(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "a").current.secret != load_keys(tmp_path / "b").current.secret


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    found = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(load_keys(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(keys == found[0] for keys in found)


def test_the_file_of_a_process_that_was_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts = f"abc {'0f' * 32}"

    def new_line_while_another_process_makes_the_file() -> str:
        (tmp_path / FILE_NAME).write_text(firsts)
        return new_line()

    monkeypatch.setattr(signing, "new_line", new_line_while_another_process_makes_the_file)
    assert load_keys(tmp_path).current.key_id == "abc"
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_first_key_signs_and_all_are_valid(tmp_path: Path) -> None:
    old = load_keys(tmp_path).current
    path = tmp_path / FILE_NAME
    path.write_text(f"{new_line()}\n\n{path.read_text()}")
    rotated = load_keys(tmp_path)
    assert rotated.current != old
    assert rotated.find(old.key_id) == old
    assert rotated.find(rotated.current.key_id) == rotated.current
    assert rotated.find("zz") is None


def test_a_named_file_is_read_and_never_made(tmp_path: Path) -> None:
    named = tmp_path / "keys"
    with pytest.raises(SigningKeysError, match="cannot be read"):
        load_keys(tmp_path, named)
    assert not named.exists()
    named.write_text("abc " + "0f" * 32)
    assert load_keys(tmp_path, named).current.secret == b"\x0f" * 32


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("# nothing\n", "no key"),
        ("abc " + "0f" * 32 + "\nabc " + "0e" * 32, "two keys"),
        ("\nABC " + "0f" * 32, "line 2"),
        ("abc " + "0f" * 31, "line 1"),
        ("abc " + "xy" * 32, "line 1"),
        ("abc", "line 1"),
    ],
)
def test_a_wrong_file_says_where_and_shows_no_secret(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(SigningKeysError, match=told) as wrong:
        load_keys(tmp_path)
    assert "0f0f" not in str(wrong.value)
    assert wrong.value.__cause__ is None


class TestSecret:
    def test_is_made_once_and_private(self, tmp_path: Path) -> None:
        first = load_secret(tmp_path / "state")
        assert len(first) == 32
        assert load_secret(tmp_path / "state") == first
        assert (tmp_path / "state" / SECRET_FILE_NAME).stat().st_mode & 0o777 == 0o600
        assert load_secret(tmp_path / "other") != first

    @pytest.mark.parametrize("content", [b"\xab" * 32, b"ab" * 32, b"  AB" + b"ab" * 31 + b"\n"])
    def test_of_a_named_file_is_bytes_or_hex(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "named").write_bytes(content)
        assert load_secret(tmp_path, tmp_path / "named") == b"\xab" * 32
        assert not (tmp_path / SECRET_FILE_NAME).exists()

    @pytest.mark.parametrize("content", [b"", b"secret", b"ab" * 31, b"\xab" * 33, b"xy" * 32])
    def test_of_any_other_length_is_refused_and_not_shown(
        self, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / SECRET_FILE_NAME).write_bytes(content)
        with pytest.raises(SigningKeysError, match="must hold 32 bytes, or 64 hex") as wrong:
            load_secret(tmp_path)
        assert "abab" not in str(wrong.value)
        assert wrong.value.__cause__ is None


def test_hosts_with_the_same_files_share_keys_and_secret(tmp_path: Path) -> None:
    first = load_secrets(tmp_path / "first")
    files = (tmp_path / "first" / FILE_NAME, tmp_path / "first" / SECRET_FILE_NAME)
    assert load_secrets(tmp_path / "second", *files) == first
    assert not (tmp_path / "second").exists()
    assert first.deployment.hex() not in repr(first)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("nonsense")
    with pytest.raises(SigningKeysError) as wrong:
        load_secrets(tmp_path, tmp_path / "keys", tmp_path / "nowhere")
    assert "keys, line 1" in str(wrong.value)
    assert "nowhere cannot be read (No such file" in str(wrong.value)
