"""Ad-free answers are kept by query, and cut where a sentence ends."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from scripted import ScriptedEngine

from models.alignment.answers import OpenEngine, complete, read_answers, write_answers
from models.engine.interface import Sampling


def serving(engine: ScriptedEngine) -> OpenEngine:
    return lambda: nullcontext(engine)


async def test_every_query_is_answered_once(tmp_path: Path) -> None:
    path, engine = tmp_path / "answers.jsonl", ScriptedEngine(["It is ", "4."])
    await write_answers(serving(engine), ["2+2?", "2+2?", "3+1?"], path, Sampling())
    await write_answers(serving(engine), ["2+2?", "1+3?"], path, Sampling())

    assert read_answers(path) == {"2+2?": "It is 4.", "3+1?": "It is 4.", "1+3?": "It is 4."}
    assert len(engine.generations) == 3


async def test_nothing_is_said_of_ads(tmp_path: Path) -> None:
    engine = ScriptedEngine(["4."])
    await write_answers(serving(engine), ["2+2?"], tmp_path / "answers.jsonl", Sampling())
    system, query = engine.generations[0].prompt.messages

    assert "ad" not in "".join(piece.text for piece in system.pieces).split()
    assert query.pieces[0].text == "2+2?"


async def test_no_engine_is_started_where_every_query_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    await write_answers(serving(ScriptedEngine(["4."])), ["2+2?"], path, Sampling())

    def refuse() -> nullcontext[ScriptedEngine]:
        raise AssertionError("an engine was started")

    await write_answers(refuse, ["2+2?"], path, Sampling())


async def test_a_query_has_a_seed_of_its_own_wherever_it_stands(tmp_path: Path) -> None:
    first, second = ScriptedEngine(["4."]), ScriptedEngine(["4."])
    sampling = Sampling(seed=1)
    await write_answers(serving(first), ["2+2?", "3+1?"], tmp_path / "1.jsonl", sampling)
    await write_answers(serving(second), ["3+1?", "1+3?"], tmp_path / "2.jsonl", sampling)
    seeds = [one.sampling.seed for one in first.generations + second.generations]

    assert None not in seeds
    assert seeds[1] == seeds[2]
    assert len(set(seeds)) == 3


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"query": "2+2?", "answer": "4."}\n{"query": "3+')

    assert read_answers(path) == {"2+2?": "4."}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\r", "\x0b", "\n"])
async def test_an_answer_may_hold_whatever_separates_lines(tmp_path: Path, separator: str) -> None:
    path, answer = tmp_path / "answers.jsonl", f"It is{separator}4."
    await write_answers(serving(ScriptedEngine([answer])), ["2+2?"], path, Sampling())

    assert read_answers(path) == {"2+2?": answer}


def test_a_line_cut_off_within_a_character_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"query": "2+2?", "answer": "4."}\n{"query": "\xe2')

    assert read_answers(path) == {"2+2?": "4."}


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        ("It is 4. Because", "It is 4."),
        ('He said "no." Then', 'He said "no."'),
        ("Do:\n1. Rest.\n2. Ru", "Do:\n1. Rest."),
        ("Version 3.5 is", ""),
        ("Really?", "Really?"),
        ("", ""),
    ],
)
def test_complete_ends_with_the_last_whole_sentence(answer: str, whole: str) -> None:
    assert complete(answer) == whole
