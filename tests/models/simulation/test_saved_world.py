import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.simulation.nouns import Ad
from models.simulation.saved_world import SavedWorldError, load_world, read_manifest, save_world
from models.simulation.world import World, WorldOptions, build_world


@pytest.fixture(scope="module")
def world(ads: tuple[Ad, ...]) -> World:
    return build_world(ads, WorldOptions(users=20))


class TestSave:
    def test_what_is_saved_is_loaded(self, world: World, tmp_path: Path) -> None:
        save_world(world, tmp_path / "deep" / "world", {"seed": 1})

        assert load_world(tmp_path / "deep" / "world") == world

    def test_what_a_search_found_is_kept(self, world: World, tmp_path: Path) -> None:
        query, ad = world.queries[0], world.ads[0]
        searched = replace(world, near={query.query_id: (ad.ad_id,)})

        save_world(searched, tmp_path / "world", {})

        assert load_world(tmp_path / "world") == searched

    def test_the_same_world_is_the_same_bytes(self, world: World, tmp_path: Path) -> None:
        for name in ("one", "two"):
            save_world(world, tmp_path / name, {"seed": 1})

        files = sorted(path.name for path in (tmp_path / "one").iterdir())
        assert files == ["ads.jsonl", "manifest.json", "queries.jsonl", "users.jsonl"]
        for name in files:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_the_manifest_says_what_is_there_and_how_it_came_about(
        self, world: World, tmp_path: Path
    ) -> None:
        save_world(world, tmp_path / "world", {"seed": 7})

        manifest = read_manifest(tmp_path / "world")

        assert manifest["built"] == {"seed": 7}
        assert manifest["counts"]["users"] == 20
        assert manifest["counts"]["test_users"] == 4
        assert manifest["counts"]["categories"] == 50
        assert set(manifest["sha256"]) == {"users.jsonl", "queries.jsonl", "ads.jsonl"}

    def test_a_world_is_replaced_only_on_purpose(self, world: World, tmp_path: Path) -> None:
        save_world(world, tmp_path / "world", {"seed": 1})

        with pytest.raises(SavedWorldError, match="there already"):
            save_world(world, tmp_path / "world", {"seed": 2})
        save_world(world, tmp_path / "world", {"seed": 2}, replace=True)

        assert read_manifest(tmp_path / "world")["built"] == {"seed": 2}
        assert [path.name for path in tmp_path.iterdir()] == ["world"]

    def test_a_folder_of_something_else_is_never_replaced(
        self, world: World, tmp_path: Path
    ) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_text("miaow")

        with pytest.raises(SavedWorldError, match="not a world"):
            save_world(world, tmp_path / "photos", {}, replace=True)

        assert (tmp_path / "photos" / "cat.jpg").exists()

    def test_a_save_that_fails_leaves_the_world_that_was_there(
        self, world: World, tmp_path: Path
    ) -> None:
        save_world(world, tmp_path / "world", {"seed": 1})

        with pytest.raises(TypeError):
            save_world(world, tmp_path / "world", {"seed": object()}, replace=True)

        assert load_world(tmp_path / "world") == world
        assert [path.name for path in tmp_path.iterdir()] == ["world"]


class TestLoad:
    def test_a_changed_file_is_noticed(self, world: World, tmp_path: Path) -> None:
        save_world(world, tmp_path / "world", {})
        queries = tmp_path / "world" / "queries.jsonl"
        queries.write_text(queries.read_text().replace("?", "!", 1))

        with pytest.raises(SavedWorldError, match=r"queries\.jsonl is not what"):
            load_world(tmp_path / "world")

    def test_a_missing_file_is_named(self, world: World, tmp_path: Path) -> None:
        save_world(world, tmp_path / "world", {})
        (tmp_path / "world" / "ads.jsonl").unlink()

        with pytest.raises(SavedWorldError, match=r"ads\.jsonl is missing"):
            load_world(tmp_path / "world")

    def test_no_world_says_how_to_get_one(self, tmp_path: Path) -> None:
        with pytest.raises(SavedWorldError, match="simulate build"):
            load_world(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"counts": {}}'])
    def test_a_strange_manifest_is_refused(self, world: World, tmp_path: Path, text: str) -> None:
        save_world(world, tmp_path / "world", {})
        (tmp_path / "world" / "manifest.json").write_text(text)

        with pytest.raises(SavedWorldError, match=r"damaged|format 99"):
            load_world(tmp_path / "world")

    def test_a_user_of_whom_a_query_speaks_must_be_there(
        self, world: World, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="users that the world lacks"):
            World(world.users[1:], world.queries, world.ads)

    def test_lines_are_plain_json(self, world: World, tmp_path: Path) -> None:
        save_world(world, tmp_path / "world", {})

        lines = (tmp_path / "world" / "users.jsonl").read_text(encoding="utf-8").splitlines()

        assert set(json.loads(lines[0])) == {"user_id", "info", "interests", "split"}
