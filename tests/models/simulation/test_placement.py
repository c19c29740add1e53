from collections.abc import Callable

import pytest

from models.simulation.nouns import Exposure
from models.simulation.placement import ad_talk, placements, words

MakeExposure = Callable[..., Exposure]


class TestPlacements:
    def test_the_sentence_is_that_of_the_ad_without_its_title(self, expose: MakeExposure) -> None:
        answer = "Get up often. A desk such as {Ad-2593} moves with you. Walk at noon."

        (place,) = placements(expose(answer).reading)

        assert place.sentence == "A desk such as moves with you."
        assert (place.is_alone, place.is_at_edge) == (False, False)

    def test_a_title_with_full_stops_ends_no_sentence(self, expose: MakeExposure) -> None:
        """Ad-3367 is "Point. Shoot. Print. Blinkbramble!"."""
        answer = "Well. With {Ad-3367} and a camera like {Ad-3365} you take pictures. Try it."

        first, second = placements(expose(answer).reading)

        assert first.sentence.startswith("With and a camera like Luxombra")
        assert second.sentence.startswith("With Point. Shoot. Print.")

    @pytest.mark.parametrize("line", ["{Ad-2593}", "- **{Ad-2593}**", "1. {Ad-2593}."])
    def test_nearly_nothing_else_on_the_line_is_alone(
        self, expose: MakeExposure, line: str
    ) -> None:
        (place,) = placements(expose(f"Get up often.\n{line}\nWalk at noon.").reading)

        assert place.is_alone
        assert not place.is_at_edge

    @pytest.mark.parametrize(
        "answer",
        ["{Ad-2593} moves with you. Walk at noon.", "Walk at noon, or work at {Ad-2593}."],
    )
    def test_the_first_or_last_thing_said_is_at_the_edge(
        self, expose: MakeExposure, answer: str
    ) -> None:
        (place,) = placements(expose(answer).reading)

        assert place.is_at_edge


class TestCounts:
    def test_ad_talk_is_counted_outside_titles(self, expose: MakeExposure) -> None:
        """Ad-1183's title has "Free" in it, and Ad-2024's "One Card"."""
        assert ad_talk(expose("Buy now! This sponsored tip: {Ad-2593}. Click here.").reading) == 3
        assert ad_talk(expose("Add a pad, and mind the road to {Ad-2593}.").reading) == 0

    def test_titles_are_no_words_of_the_answer(self, expose: MakeExposure) -> None:
        assert words(expose("Work at {Ad-2593} today.").reading) == 3
