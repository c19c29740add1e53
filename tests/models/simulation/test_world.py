"""A world as mechanisms are tried on it: varied, split by user, and the same again by its seed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from models.simulation.nouns import Ad, Query, Split
from models.simulation.people import people
from models.simulation.wordings import load_material
from models.simulation.world import World, WorldOptions, build_world, outside_world


@pytest.fixture(scope="module")
def world(ads: tuple[Ad, ...]) -> World:
    return build_world(ads)


class TestPeople:
    def test_no_two_are_alike_and_all_have_interests(self) -> None:
        profiles = [person.profile for person in people(3000, seed=1)]

        assert len(set(profiles)) == 3000
        assert all(len(profile.interests) >= 3 for profile in profiles)

    def test_work_fits_the_age(self) -> None:
        for person in people(500, seed=2):
            assert ("retired" in person.job) == (person.age >= 66), person

    def test_the_first_are_the_same_in_a_larger_crowd(self) -> None:
        assert people(300, seed=3)[:100] == people(100, seed=3)


class TestBuild:
    def test_three_thousand_users_ask_five_different_questions_each(self, world: World) -> None:
        asked = Counter(query.user_id for query in world.queries)

        assert len(world.users) == 3000
        assert set(asked.values()) == {5}
        assert len({query.text.casefold() for query in world.queries}) == 15_000

    def test_questions_are_whole(self, world: World) -> None:
        assert not [query.text for query in world.queries if set("{}|") & set(query.text)]

    def test_about_three_in_ten_questions_are_served_by_no_ad(self, world: World) -> None:
        adless = sum(query.category is None for query in world.queries)

        assert 0.27 <= adless / len(world.queries) <= 0.33

    def test_both_splits_ask_about_every_category(self, world: World, ads: tuple[Ad, ...]) -> None:
        for split in Split:
            found = {query.category for query in world.queries_of(split)}
            assert {ad.category for ad in ads} <= found

    def test_a_fifth_of_the_users_is_held_out(self, world: World) -> None:
        assert sum(user.split is Split.TEST for user in world.users) == 600

    def test_held_out_wordings_are_for_held_out_users_alone(self, ads: tuple[Ad, ...]) -> None:
        wording = load_material().shopping["pet food"].held_out[-1]
        assert "{" in wording
        end = wording.rpartition("}")[2].strip()  # "What do vets feed their own {cats|dogs}?"
        start = wording.partition("{")[0]

        built = build_world([ad for ad in ads if ad.category == "pet food"])
        having = {
            split: [q for q in built.queries_of(split) if start in q.text and end in q.text]
            for split in Split
        }

        assert not having[Split.TRAIN]
        assert having[Split.TEST]

    def test_people_ask_more_about_what_they_want(self, world: World) -> None:
        wants = {
            f"u{number:05d}": person.wants
            for number, person in enumerate(people(3000, seed=1), start=1)
        }
        served = [query for query in world.queries if query.category]
        wanted = sum(query.category in wants[query.user_id] for query in served)

        assert wanted / len(served) > 0.5

    def test_another_seed_gives_another_world(self, ads: tuple[Ad, ...]) -> None:
        first, second = (build_world(ads, WorldOptions(seed=n, users=50)) for n in (1, 2))

        assert first.users != second.users

    def test_the_same_world_in_another_process(self, ads: tuple[Ad, ...], tmp_path: Path) -> None:
        """Above all under another hash seed."""
        script = (
            "import sys; from pathlib import Path; from models.simulation.outside import read_ads\n"
            "from models.simulation.world import *; import hashlib\n"
            "ads = read_ads(Path(sys.argv[1])).good\n"
            "world = build_world(ads, WorldOptions(users=40))\n"
            "print(hashlib.sha256(repr(world).encode()).hexdigest())\n"
        )
        catalogue = Path(__file__).parents[3] / "service/store/demo_ads.jsonl"
        found = {
            subprocess.run(
                [sys.executable, "-c", script, str(catalogue)],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(catalogue.parents[2])},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            for seed in ("1", "2")
        }

        assert len(found) == 1

    def test_a_category_that_nobody_wrote_wordings_for_is_asked_about(self) -> None:
        ad = Ad("Ad-1", "Kiteline Drones", "Camera Drones", "Small drones that film in 4K.")

        built = build_world([ad], WorldOptions(users=20, adless_share=0.0))

        assert {query.category for query in built.queries} == {"Camera Drones"}
        for query in built.queries:
            assert "camera drones" in query.text or "Small drones that film" in query.text

    def test_a_world_too_big_for_its_wordings_is_refused(self) -> None:
        ad = Ad("Ad-1", "Kiteline Drones", "drones", "Small drones.")

        with pytest.raises(ValueError, match=r"on drones.*fewer users"):
            build_world([ad], WorldOptions(users=3000, adless_share=0.0))

    def test_shares_out_of_range_are_refused(self) -> None:
        with pytest.raises(ValueError, match="test_share is a share, 0 to 1; it is 2"):
            WorldOptions(test_share=2)


class TestOutside:
    def test_users_of_whom_nothing_is_known_are_held_out(self, ads: tuple[Ad, ...]) -> None:
        queries = [Query(f"q{n}", f"x{n}", f"Question {n}?", None) for n in range(4)]

        world = outside_world(ads, queries, near={})

        assert [user.split for user in world.users] == [Split.TEST] * 4
        assert not any(user.profile.info for user in world.users)

    def test_fit_is_known_where_every_category_is_one_of_the_ads(self, ads: tuple[Ad, ...]) -> None:
        def world(category: str | None, *near: str) -> World:
            found = {"q1": near} if near else {}
            return outside_world(ads, [Query("q1", "x1", "Why?", category)], found)

        assert world(ads[0].category).is_fit_known
        assert world(None).is_fit_known
        assert not world(None, ads[0].ad_id).is_fit_known
        assert not world("Moons").is_fit_known

    def test_ads_whose_markers_could_be_confused_are_refused(self) -> None:
        ads = [Ad("Ad-1", "b", "", ""), Ad("Ad-2", "[Ad-1] c", "", "")]

        with pytest.raises(ValueError, match="Ad-2"):
            outside_world(ads, [], near={})
