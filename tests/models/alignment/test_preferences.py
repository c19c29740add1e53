"""The winner has the highest reward; losers are worse by more than delta."""

from small_market import ADS, auction

from models.alignment.preferences import Scored, prefer
from models.contract.markers import read


def scored(text: str, reward: float) -> Scored:
    return Scored(read(text, (), 0), reward)


def texts(answers: list[Scored]) -> tuple[str, set[str]] | None:
    found = prefer(auction(), answers, delta=10)
    if found is None:
        return None
    return found.winner.reading.answer, {loser.reading.answer for loser in found.losers}


def test_losers_are_worse_by_more_than_delta() -> None:
    answers = [scored("a", 5.0), scored("b", 20.0), scored("c", 10.0), scored("d", 9.9)]

    assert texts(answers) == ("b", {"a", "d"})


def test_nothing_is_learnt_from_answers_that_are_alike_in_reward() -> None:
    assert texts([scored("a", 5.0), scored("b", 15.0)]) is None
    assert texts([]) is None


def test_of_equals_the_first_wins_and_repeats_count_once() -> None:
    answers = [scored("a", 30.0), scored("b", 30.0), scored("c", 1.0), scored("c", 0.0)]

    assert texts(answers) == ("a", {"c"})


def test_an_empty_answer_is_never_preferred_nor_learnt_from() -> None:
    assert texts([scored("", 30.0), scored("c", 1.0)]) is None
    assert texts([scored("a", 30.0), scored("", 1.0)]) is None


def test_an_answer_cut_off_within_a_marker_is_passed_over() -> None:
    cut = Scored(read("Try @Mossr", [ad.marked for ad in ADS], 3), -100.0)

    assert texts([scored("a", 30.0), cut, scored("c", 1.0)]) == ("a", {"c"})
    assert texts([cut]) is None
