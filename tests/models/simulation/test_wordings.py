from random import Random

import pytest

from models.simulation.nouns import Ad
from models.simulation.wordings import fill, load_material


class TestFill:
    def test_alternatives_and_slots_may_nest(self) -> None:
        wording = "{in {month}|next year} to {city}"

        texts = {fill(wording, {"month": ["May"], "city": ["Rome"]}, Random(n)) for n in range(20)}

        assert texts == {"in May to Rome", "next year to Rome"}

    def test_an_unknown_slot_is_named(self) -> None:
        with pytest.raises(ValueError, match="'town'"):
            fill("to {town}", {"city": ["Rome"]}, Random(1))


class TestMaterial:
    def test_every_category_of_the_demo_catalogue_has_wordings(self, ads: tuple[Ad, ...]) -> None:
        material = load_material()

        assert {ad.category for ad in ads} <= set(material.shopping)

    def test_questions_hardly_ever_name_the_category(self) -> None:
        naming = [
            wording
            for category, wordings in load_material().shopping.items()
            for wording in (*wordings.wordings, *wordings.held_out)
            if category.removesuffix("s") in wording.lower()
        ]

        assert len(naming) <= 5, naming

    def test_held_out_wordings_are_other_ones(self) -> None:
        material = load_material()

        for wordings in (*material.shopping.values(), *material.general.values()):
            assert wordings.held_out
            assert not set(wordings.wordings) & set(wordings.held_out)
