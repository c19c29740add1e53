import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from talking import TalkingEngine

from models.engine.interface import EngineDead, EngineOverloaded, EngineUnavailable, Sampling
from models.simulation import asking
from models.simulation.asking import (
    CompletionError,
    Question,
    UserLlm,
    all_in_order,
    chat,
)
from models.simulation.completions import CompletionStore

QUESTION = Question(chat("test-1", "Be brief.", "Who?"), Sampling(seed=5), 'root ::= "a"')


def number(text: str) -> int:
    return int(text)


class TestAsk:
    async def test_an_answer_is_asked_for_once(self) -> None:
        engine = TalkingEngine(["7"])
        llm = UserLlm(engine)

        assert [await llm.ask(QUESTION, number) for _ in range(2)] == [7, 7]
        assert len(engine.generations) == 1

    async def test_an_unusable_answer_is_asked_for_again_with_another_seed(self) -> None:
        engine = TalkingEngine(["seven", "7"])

        assert await UserLlm(engine).ask(QUESTION, number) == 7
        assert [asked.sampling.seed for asked in engine.generations] == [5, 6]

    async def test_after_the_last_try_the_problem_is_told(self) -> None:
        engine = TalkingEngine(["seven"])

        with pytest.raises(CompletionError, match=r"2 tries.*'seven'"):
            await UserLlm(engine, tries=2).ask(QUESTION, number)

    async def test_a_busy_engine_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "_FIRST_PAUSE_S", 0.0)
        engine = TalkingEngine([EngineOverloaded("full"), "7"])

        assert await UserLlm(engine).ask(QUESTION, number) == 7

    async def test_an_outage_that_lasts_is_told_as_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asking, "_FIRST_PAUSE_S", 0.0)
        engine = TalkingEngine(["seven", EngineUnavailable("away")])

        with pytest.raises(EngineUnavailable, match="away"):
            await UserLlm(engine).ask(QUESTION, number)
        assert len(engine.generations) == 3

    async def test_a_dead_engine_is_not_asked_again(self) -> None:
        engine = TalkingEngine([EngineDead("gone")])

        with pytest.raises(EngineDead):
            await UserLlm(engine).ask(QUESTION, number)
        assert len(engine.generations) == 1

    async def test_no_more_are_asked_at_once_than_wished(self) -> None:
        engine = TalkingEngine(["7"])
        llm = UserLlm(engine, concurrency=3)

        async with asyncio.TaskGroup() as tasks:
            for seed in range(20):
                asked = replace(QUESTION, sampling=Sampling(seed=seed))
                tasks.create_task(llm.ask(asked, number))

        assert engine.most_at_once == 3


class TestAllInOrder:
    async def test_results_keep_the_order_of_the_work(self) -> None:
        first_may_end = asyncio.Event()

        async def slow() -> int:
            await first_may_end.wait()
            return 1

        async def quick() -> int:
            first_may_end.set()
            return 2

        seen: list[int] = []
        assert await all_in_order([slow(), quick()], seen.append) == [1, 2]
        assert seen == [1, 2]

    async def test_the_first_failure_is_raised_as_it_is_and_ends_the_others(self) -> None:
        ended = asyncio.Event()

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def failing() -> None:
            raise EngineDead("gone")

        with pytest.raises(EngineDead):
            await all_in_order([endless(), failing()], lambda done: None)
        assert ended.is_set()


class TestStore:
    async def test_what_was_said_is_kept_on_disk(self, tmp_path: Path) -> None:
        path = tmp_path / "kept" / "llm.sqlite"
        for engine in (TalkingEngine(["7"]), TalkingEngine(["8"])):
            store = CompletionStore(path)
            assert await UserLlm(engine, store).ask(QUESTION, number) == 7
            store.close()

    async def test_other_sampling_prompt_or_grammar_is_another_question(self) -> None:
        engine = TalkingEngine(["7", "8", "9", "10"])
        llm = UserLlm(engine)
        others = [
            replace(QUESTION, sampling=Sampling(seed=5, temperature=0.1)),
            replace(QUESTION, prompt=chat("test-1", "Be brief.", "Where?")),
            replace(QUESTION, grammar='root ::= "b"'),
        ]

        assert [await llm.ask(asked, number) for asked in (QUESTION, *others)] == [7, 8, 9, 10]
