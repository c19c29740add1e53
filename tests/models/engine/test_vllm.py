"""The engine in process, with the real vLLM and the default model."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import anyio
import psutil
import pytest

from models.contract.prompt import Message, Piece, Prompt
from models.engine.interface import (
    Chunk,
    Engine,
    EngineError,
    Generation,
    Load,
    PromptTooLong,
    Sampling,
)
from models.engine.vllm import VllmEngine
from models.provision import ServableModel

ANYTHING = "root ::= [^@]*"
# Only a character that no answer holds lets it end.
WITHOUT_END = 'root ::= [^@]* "\\ue000"'


def asked(question: str) -> Prompt:
    return Prompt("test", (Message("user", (Piece(question, recurs=False),)),))


def generation(
    question: str = "Tell me about tents.",
    grammar: str = ANYTHING,
    request_id: str = "test",
    sampling: Sampling | None = None,
) -> Generation:
    return Generation(request_id, asked(question), sampling or Sampling(max_tokens=24), grammar)


async def collected(engine: Engine, wanted: Generation) -> list[Chunk]:
    async with aclosing(engine.generate(wanted)) as chunks:
        return [chunk async for chunk in chunks]


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition`, of which vLLM raises no event, holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
async def idle(vllm_engine: VllmEngine) -> AsyncIterator[None]:
    yield
    assert vllm_engine.load() == Load(0, 0)


class TestGenerate:
    async def test_long_prompts_with_seeds_run_side_by_side(self, vllm_engine: VllmEngine) -> None:
        """Together they exceed what vLLM reads in a step; reading one in parts would kill it."""
        answers = await asyncio.gather(
            *(
                collected(
                    vllm_engine,
                    generation(
                        "tent " * 1500,
                        request_id=f"long-{seed}",
                        sampling=Sampling(max_tokens=4, seed=seed),
                    ),
                )
                for seed in range(3)
            )
        )
        assert all(chunks[-1].finish_reason in {"stop", "length"} for chunks in answers)

    async def test_streams_in_order_and_accounts_for_it_at_the_end(
        self, vllm_engine: VllmEngine
    ) -> None:
        before = time.monotonic()
        chunks = await collected(vllm_engine, generation(grammar=WITHOUT_END))
        after = time.monotonic()

        last = chunks[-1]
        assert len(chunks) > 3
        assert text(chunks).strip()
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert last.finish_reason == "length"
        assert last.usage is not None
        assert last.usage.completion_tokens == 24 == sum(chunk.token_count for chunk in chunks)
        assert last.usage.prompt_tokens == vllm_engine.count_tokens(generation().prompt)
        assert last.scheduled_at is not None
        assert last.first_token_at is not None
        assert before <= last.scheduled_at <= last.first_token_at <= after

    async def test_the_grammar_binds_the_answer(self, vllm_engine: VllmEngine) -> None:
        chunks = await collected(vllm_engine, generation(grammar='root ::= "yes@[Ad-1]" | "no@"'))

        assert text(chunks) in ("yes@[Ad-1]", "no@")
        assert chunks[-1].finish_reason == "stop"

    async def test_characters_of_several_tokens_arrive_whole(self, vllm_engine: VllmEngine) -> None:
        wanted = "帐篷 👩‍👩‍👧 ½"
        chunks = await collected(vllm_engine, generation(grammar=f'root ::= "{wanted}"'))

        assert text(chunks) == wanted
        assert all("\ufffd" not in chunk.text for chunk in chunks)

    async def test_a_seed_repeats_the_answer(self, vllm_engine: VllmEngine) -> None:
        def seeded(seed: int) -> Generation:
            return generation(sampling=Sampling(temperature=1.5, max_tokens=16, seed=seed))

        first = text(await collected(vllm_engine, seeded(7)))
        other = text(await collected(vllm_engine, seeded(8)))
        again = text(await collected(vllm_engine, seeded(7)))

        assert first == again != other

    @pytest.mark.parametrize(("top_k", "fewest", "most"), [(1, 1, 2), (5, 2, 8), (0, 10, 24)])
    async def test_top_k_bounds_what_a_hot_answer_begins_with(
        self, vllm_engine: VllmEngine, top_k: int, fewest: int, most: int
    ) -> None:
        def hot(seed: int) -> Generation:
            sampling = Sampling(temperature=2, top_k=top_k, top_p=0.99, max_tokens=1, seed=seed)
            return generation(sampling=sampling, request_id=f"hot-{seed}")

        answers = await asyncio.gather(*(collected(vllm_engine, hot(seed)) for seed in range(24)))

        begun = {text(answer) for answer in answers}
        assert fewest <= len(begun) <= most

    async def test_a_recurring_start_of_the_prompt_is_cached(self, vllm_engine: VllmEngine) -> None:
        long_start = "A tent, a stove and a lamp. " * 60
        await collected(vllm_engine, generation(long_start + "Which is light?"))
        chunks = await collected(vllm_engine, generation(long_start + "Which is warm?"))

        usage = chunks[-1].usage
        assert usage is not None
        assert usage.prompt_tokens - 256 < usage.cached_tokens < usage.prompt_tokens

    async def test_a_prompt_that_fills_the_context_is_refused(
        self, vllm_engine: VllmEngine
    ) -> None:
        with pytest.raises(PromptTooLong, match="2048"):
            await collected(vllm_engine, generation("word " * 2048))

    async def test_the_answer_is_clipped_to_what_the_context_leaves(
        self, vllm_engine: VllmEngine
    ) -> None:
        question = "word " * 2000
        room = vllm_engine.max_model_len - vllm_engine.count_tokens(asked(question))
        chunks = await collected(
            vllm_engine,
            generation(question, WITHOUT_END, sampling=Sampling(max_tokens=3000)),
        )

        assert chunks[-1].finish_reason == "length"
        assert sum(chunk.token_count for chunk in chunks) == room

    async def test_a_broken_grammar_is_an_engine_error(self, vllm_engine: VllmEngine) -> None:
        with pytest.raises(EngineError, match="ended the answer: error"):
            await collected(vllm_engine, generation(grammar='root ::= "never closed'))

        assert await collected(vllm_engine, generation())  # the engine lives on

    async def test_this_process_parses_no_grammar(
        self, vllm_engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def parse(text: str) -> None:
            raise AssertionError("parsed in the event loop")

        monkeypatch.setattr("xgrammar.Grammar.from_ebnf", parse)
        chunks = await collected(vllm_engine, generation(grammar='root ::= "yes"'))

        assert "".join(chunk.text for chunk in chunks) == "yes"


class TestUnstreamed:
    async def test_says_in_one_chunk_what_a_stream_says_in_many(
        self, vllm_engine: VllmEngine
    ) -> None:
        streamed = generation(grammar=WITHOUT_END, sampling=Sampling(max_tokens=24, seed=7))
        chunks = await collected(vllm_engine, streamed)
        before = time.monotonic()
        (whole,) = await collected(vllm_engine, replace(streamed, is_streamed=False))

        assert whole.text == text(chunks)
        assert whole.token_count == 24
        assert whole.finish_reason == "length"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 24
        assert whole.first_token_at is not None
        assert before < whole.first_token_at < time.monotonic()

    async def test_the_token_that_ends_it_is_no_part_of_it(self, vllm_engine: VllmEngine) -> None:
        asked = replace(generation(grammar='root ::= "yes"'), is_streamed=False)
        (whole,) = await collected(vllm_engine, asked)
        assert (whole.text, whole.finish_reason) == ("yes", "stop")


class TestDeadline:
    @pytest.mark.parametrize("is_streamed", [True, False])
    async def test_ends_the_answer_with_what_was_written(
        self, vllm_engine: VllmEngine, is_streamed: bool
    ) -> None:
        asked = generation(grammar=WITHOUT_END, sampling=Sampling(max_tokens=3000))
        deadline_at = time.monotonic() + 1.5
        chunks = await collected(
            vllm_engine, replace(asked, is_streamed=is_streamed, deadline_at=deadline_at)
        )

        assert deadline_at <= time.monotonic() < deadline_at + 1
        assert chunks[-1].finish_reason == "deadline"
        assert text(chunks).strip()
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == sum(chunk.token_count for chunk in chunks) > 0

    async def test_one_in_the_past_costs_the_engine_nothing(self, vllm_engine: VllmEngine) -> None:
        (only,) = await collected(
            vllm_engine, replace(generation(), deadline_at=time.monotonic() - 1)
        )
        assert (only.text, only.token_count, only.finish_reason) == ("", 0, "deadline")


class TestAbort:
    endless = generation(grammar=WITHOUT_END, sampling=Sampling(max_tokens=3000))

    async def test_closing_the_generator_frees_the_engine(self, vllm_engine: VllmEngine) -> None:
        chunks = vllm_engine.generate(self.endless)
        await anext(chunks)
        await until(lambda: vllm_engine.load() == Load(1, 0), 5)

        await chunks.aclose()

        await until(lambda: vllm_engine.load() == Load(0, 0), 1)
        await self.assert_nothing_else_runs(vllm_engine)

    async def test_cancelling_the_task_frees_the_engine(self, vllm_engine: VllmEngine) -> None:
        task = asyncio.create_task(collected(vllm_engine, self.endless))
        await until(lambda: vllm_engine.load() == Load(1, 0), 5)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await self.assert_nothing_else_runs(vllm_engine)

    async def test_a_cancel_scope_frees_the_engine(self, vllm_engine: VllmEngine) -> None:
        # Its cancellation comes again at every await, so the abort must not need one.
        async with anyio.create_task_group() as group:
            group.start_soon(collected, vllm_engine, self.endless)
            await until(lambda: vllm_engine.load() == Load(1, 0), 5)
            group.cancel_scope.cancel()

        await self.assert_nothing_else_runs(vllm_engine)

    async def assert_nothing_else_runs(self, engine: VllmEngine) -> None:
        """The scheduler's own count, taken in the steps of another request, shows that one only."""
        async with aclosing(engine.generate(generation())) as chunks:
            async for _ in chunks:
                running = sum(gauge.running for gauge in engine._gauges)
                assert running <= 1


class TestLoad:
    async def test_counts_what_runs(self, vllm_engine: VllmEngine) -> None:
        wanted = Sampling(max_tokens=40)
        tasks = [
            asyncio.create_task(
                collected(vllm_engine, generation(request_id=f"r{n}", sampling=wanted))
            )
            for n in range(5)
        ]
        await until(lambda: vllm_engine.load() == Load(5, 0), 20)
        await asyncio.gather(*tasks)


class TestItsOwnProcess:
    async def test_leaves_ctrl_c_to_this_one(self, vllm_engine: VllmEngine) -> None:
        (core,) = (
            child for child in psutil.Process().children() if "EngineCore" in child.cmdline()[0]
        )
        async with aclosing(vllm_engine.generate(generation(grammar=WITHOUT_END))) as chunks:
            await anext(chunks)
            core.send_signal(signal.SIGINT)
            reasons = [chunk.finish_reason async for chunk in chunks]

        assert reasons[-1] == "length"
        await vllm_engine.check()


class TestCheck:
    async def test_a_live_engine_is_healthy(self, vllm_engine: VllmEngine) -> None:
        await vllm_engine.check()


def test_the_model_is_named_by_its_contents(
    vllm_engine: VllmEngine, servable_model: ServableModel
) -> None:
    assert vllm_engine.model.name == servable_model.name
    assert vllm_engine.model.revision == servable_model.revision
