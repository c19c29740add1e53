"""Answers are drawn as the service draws them, once each, whatever interrupts."""

import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from pathlib import Path

import pytest
from small_market import ADS, auction

from models.alignment.answers import OpenEngine
from models.alignment.sampling import SamplingOptions, sample
from models.contract.grammar import grammar
from models.engine.interface import (
    Chunk,
    Engine,
    EngineDead,
    FinishReason,
    Generation,
    Sampling,
    Usage,
)

OPTIONS = SamplingOptions(per_auction=2, sampling=Sampling(max_tokens=9))
AUCTIONS = [auction(name="a"), auction(name="b")]
ANSWER = "Try @Mossrunner 3@[Ad-1], it is good."


class FailingEngine:
    """Answers, and dies after a number of answers."""

    def __init__(self, lives: int = 99, finish_reason: FinishReason = "stop") -> None:
        self.lives = lives
        self.finish_reason = finish_reason
        self.generations: list[Generation] = []

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
        if len(self.generations) == self.lives:
            raise EngineDead("gone")
        self.generations.append(generation)
        yield Chunk(ANSWER[:10], 1)
        yield Chunk(ANSWER[10:], 1, self.finish_reason, Usage(1, 0, 2))


def serving(engine: FailingEngine) -> OpenEngine:
    return lambda: nullcontext(engine)  # type: ignore[arg-type]


async def test_answers_come_read_in_the_order_of_the_auctions(tmp_path: Path) -> None:
    engine = FailingEngine()
    found = await sample(serving(engine), AUCTIONS, OPTIONS, tmp_path / "answers.jsonl")

    assert [len(answers) for answers in found] == [2, 2]
    assert {
        segment.ad_id
        for answers in found
        for answer in answers
        for segment in answer.reading.insertions
    } == {"Ad-1"}
    assert len({generation.sampling.seed for generation in engine.generations}) == 2


async def test_decoding_is_constrained_as_in_the_service_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    engine = FailingEngine()
    await sample(serving(engine), AUCTIONS, OPTIONS, tmp_path / "1.jsonl")
    free = SamplingOptions(per_auction=1, is_constrained=False)
    await sample(serving(engine), AUCTIONS, free, tmp_path / "2.jsonl")

    assert engine.generations[0].grammar == grammar([ad.marked for ad in ADS], OPTIONS.max_ads)
    assert engine.generations[0].insertions == [ad.marked.marker for ad in ADS]
    assert engine.generations[-1].grammar is None
    assert not engine.generations[-1].insertions


async def test_what_was_drawn_before_a_crash_is_not_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with pytest.raises(EngineDead):
        await sample(serving(FailingEngine(lives=3)), AUCTIONS, OPTIONS, path)
    with path.open("a") as file:
        file.write('{"auction": "b", "num')
    kept = len(path.read_text().splitlines()) - 1
    engine = FailingEngine()
    found = await sample(serving(engine), AUCTIONS, OPTIONS, path)

    assert len(engine.generations) == 4 - kept
    assert all(answer.reading.answer == ANSWER for answers in found for answer in answers)


async def test_no_engine_is_started_where_nothing_is_left_to_draw(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = await sample(serving(FailingEngine()), AUCTIONS, OPTIONS, path)

    def refuse() -> nullcontext[Engine]:
        raise AssertionError("an engine was started")

    assert await sample(refuse, AUCTIONS, OPTIONS, path) == first


async def test_a_half_written_line_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"auction": "b", "num')
    await sample(serving(FailingEngine()), AUCTIONS, OPTIONS, path)
    engine = FailingEngine()
    await sample(serving(engine), AUCTIONS, OPTIONS, path)

    assert not engine.generations
    assert len([line for line in path.read_text().splitlines() if json.loads(line)]) == 4


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
async def test_an_answer_cut_off_is_told_from_one_that_ended_now_and_later(
    tmp_path: Path, finish_reason: FinishReason
) -> None:
    for _ in range(2):
        engine = FailingEngine(finish_reason=finish_reason)
        found = await sample(serving(engine), AUCTIONS, OPTIONS, tmp_path / "answers.jsonl")

        assert {a.is_whole for answers in found for a in answers} == {finish_reason == "stop"}
