"""A woven-in ad reads back without a fault, inside the answer, in a sentence that speaks of it."""

import random
from dataclasses import replace

import pytest
from small_market import ADS

from models.alignment.weave import CLOSINGS, offer_in_brief, sentence_ends, weave
from models.contract.markers import read
from models.simulation.nouns import Ad
from models.simulation.placement import placements

ANSWER = "Good shoes matter. Start slowly. Rest a day between runs."


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ad", ADS, ids=lambda ad: ad.ad_id)
@pytest.mark.parametrize("answer", [ANSWER, "Good shoes matter.", "Try:\n\n1. This. And\n2. That."])
def test_is_read_back_and_natively_placed(answer: str, ad: Ad, seed: int) -> None:
    woven = weave(answer, ad, random.Random(seed))
    reading = read(woven.text, [one.marked for one in ADS], max_ads=3)
    place = placements(reading)[0]

    assert [segment.ad_id for segment in reading.insertions] == [ad.ad_id]
    assert not reading.faults
    assert not place.is_alone
    assert not place.is_at_edge
    assert ad.category in place.sentence
    assert offer_in_brief(ad) in place.sentence


def test_an_ad_without_a_description_makes_a_whole_sentence_too() -> None:
    ad = replace(ADS[0], description="")
    for seed in range(20):
        woven = weave(ANSWER, ad, random.Random(seed))
        assert woven.sentence is not None
        sentence = woven.text[slice(*woven.sentence)]
        assert ":" not in sentence.replace(ad.marked.marker, "")
        assert sentence.endswith((f"{ad.marked.marker}.", " worth a look.", " suit you."))


def test_an_ad_never_has_the_last_word() -> None:
    assert weave("Good shoes matter.", ADS[0], random.Random(1)).text.endswith(CLOSINGS)


def test_spans_are_those_of_sentence_and_marker() -> None:
    woven = weave(ANSWER, ADS[1], random.Random(1))
    assert woven.sentence is not None
    assert woven.marker is not None

    assert woven.text[slice(*woven.marker)] == ADS[1].marked.marker
    assert woven.plain == ANSWER


@pytest.mark.parametrize("answer", [ANSWER, "Good shoes matter."])
def test_without_what_was_put_in_it_is_the_answer(answer: str) -> None:
    assert weave(answer, ADS[1], random.Random(1)).plain == answer


@pytest.mark.parametrize(
    ("description", "brief"),
    [
        ("Light shoes for race day.", "light shoes for race day"),
        ("LED lamps: bright and warm.", "LED lamps"),
        (
            "A plan for " + "heavy users and " * 9,
            "a plan for heavy users and heavy users and heavy users and heavy",
        ),
        ("", ""),
    ],
)
def test_an_offer_is_brief_and_within_what_the_model_reads(description: str, brief: str) -> None:
    assert offer_in_brief(Ad("Ad-1", "T", "c", description)) == brief


def test_a_list_number_ends_no_sentence() -> None:
    text = "Do this:\n1. Rest. Then\n2. Run. Done."
    assert [text[:end] for end in sentence_ends(text)] == [
        "Do this:\n1. Rest.",
        "Do this:\n1. Rest. Then\n2. Run.",
    ]
