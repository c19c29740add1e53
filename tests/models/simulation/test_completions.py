"""What was written once is never written again."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from typist import Typist

from models.contract.prompt import Layout, Prompt, build_prompt
from models.engine.interface import Chunk, EngineUnavailable, Generation, Sampling
from models.simulation.completions import Completions, CompletionStore


def asking(question: str) -> Prompt:
    return build_prompt(Layout.INLINE, (), question)


def seeded(seed: int) -> Sampling:
    return Sampling(seed=seed)


class TestCompletions:
    async def test_one_that_is_kept_needs_no_engine(self, tmp_path: Path) -> None:
        file = tmp_path / "kept" / "completions.sqlite"
        first = Completions(Typist(lambda _: "One two."), CompletionStore(file))
        written = await first.complete(asking("Hm?"), seeded(1), None)
        later = Typist(lambda _: "Something else.")
        again = await Completions(later, CompletionStore(file)).complete(
            asking("Hm?"), seeded(1), None
        )
        assert written.text == "One two."
        assert written.completion_tokens == 2
        assert again == written
        assert not later.asked

    async def test_one_that_was_broken_off_is_not_kept(self) -> None:
        class Leaving(Typist):
            async def generate(self, generation: Generation) -> AsyncGenerator[Chunk]:
                yield Chunk("One", 1)
                yield Chunk("", 0, "abort")

        store = CompletionStore(None)
        with pytest.raises(EngineUnavailable):
            await Completions(Leaving(lambda _: ""), store).complete(asking("Hm?"), seeded(1), None)
        again = Completions(Typist(lambda _: "One two."), store)
        assert (await again.complete(asking("Hm?"), seeded(1), None)).text == "One two."

    async def test_one_in_the_making_is_shared(self) -> None:
        engine = Typist(lambda _: "Once.")
        completions = Completions(engine, CompletionStore(None))
        asks = [completions.complete(asking("Hm?"), seeded(1), None) for _ in range(5)]
        assert len(set(await asyncio.gather(*asks))) == 1
        assert len(engine.asked) == completions.written == 1

    async def test_prompt_seed_grammar_and_weights_all_tell_completions_apart(self) -> None:
        store = CompletionStore(None)
        engine, other_weights = Typist(lambda _: "A"), Typist(lambda _: "B", revision="2")
        completions = Completions(engine, store)
        await completions.complete(asking("Hm?"), seeded(1), None)
        await completions.complete(asking("What?"), seeded(1), None)
        await completions.complete(asking("Hm?"), seeded(2), None)
        await completions.complete(asking("Hm?"), seeded(1), 'root ::= "A"')
        found = await Completions(other_weights, store).complete(asking("Hm?"), seeded(1), None)
        assert len(engine.asked) == 4
        assert found.text == "B"
