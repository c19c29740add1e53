"""An answer that its limit of tokens cuts off is never cut off within a marker."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from decimal import Decimal
from types import SimpleNamespace

import pytest
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from models.contract.grammar import grammar
from models.contract.markers import MarkedAd, read
from models.contract.prompt import Candidate, Layout, build_prompt
from models.contract.reading import FaultKind
from models.engine import last_insertion
from models.engine.interface import Generation, Sampling
from models.engine.last_insertion import LastInsertion, last_insertion_arguments
from models.engine.vllm import VllmEngine

ADS = {
    MarkedAd("Ad-1", "Trail Tent 2"): "camping tents",
    MarkedAd("Ad-22", "Lightfoot Daily Trainer"): "running shoes",
    MarkedAd("Ad-333", "Easy Italian"): "language learning app",
}
LIMITS = range(36, 76)
VOCABULARY = {"a": 0, "b": 1, "c": 2, "d": 3, "@": 4, " @": 5}
FORBIDDEN = float("-inf")


async def faults_and_ads(
    engine: VllmEngine, insertions: Sequence[str]
) -> tuple[list[FaultKind], int]:
    """Of an answer for each of LIMITS, most of which are reached near the ad."""
    candidates = [Candidate(ad.ad_id, ad.title, kind, "", Decimal(40)) for ad, kind in ADS.items()]
    question = "We want to sleep outdoors with three children. What do we need?"
    prompt = build_prompt(Layout.INLINE, candidates, question)
    marked = list(ADS)

    async def answer(max_tokens: int) -> str:
        sampling = Sampling(max_tokens=max_tokens, seed=max_tokens)
        wanted = Generation(
            f"at-most-{max_tokens}", prompt, sampling, grammar(marked, 3), insertions=insertions
        )
        async with aclosing(engine.generate(wanted)) as chunks:
            return "".join([chunk.text async for chunk in chunks])

    answers = await asyncio.gather(*map(answer, LIMITS))
    readings = [read(text, marked, 3) for text in answers]
    faults = [fault.kind for reading in readings for fault in reading.faults]
    return faults, sum(len(reading.insertions) for reading in readings)


async def test_no_answer_ends_within_a_marker(vllm_engine: VllmEngine) -> None:
    faults, ads = await faults_and_ads(vllm_engine, [ad.marker for ad in ADS])
    assert not faults
    assert ads > len(LIMITS) / 4

    faults, _ = await faults_and_ads(vllm_engine, [])
    assert FaultKind.TRUNCATED in faults  # which is what the engine does of itself


class TestLastInsertion:
    @pytest.fixture
    def processor(self, monkeypatch: pytest.MonkeyPatch) -> LastInsertion:
        tokenizer = SimpleNamespace(get_vocab=lambda: VOCABULARY)
        monkeypatch.setattr(last_insertion, "cached_tokenizer_from_config", lambda _: tokenizer)
        config = SimpleNamespace(model_config=None)
        return LastInsertion(config, torch.device("cpu"), False)  # type: ignore[arg-type]

    def test_text_goes_on_without_beginnings(self, processor: LastInsertion) -> None:
        written: list[int] = []
        processor.update_state(adds((1, keeping_room(20, 5), written)))
        written += range(13)
        assert not torch.isinf(processor.apply(torch.zeros(2, 6))).any()
        written.append(0)
        logits = processor.apply(torch.zeros(2, 6))
        assert torch.isinf(logits).tolist() == [[False] * 6, [False] * 4 + [True] * 2]

    def test_a_long_title_leaves_room_for_others_in_short_answers(
        self, processor: LastInsertion
    ) -> None:
        processor.update_state(adds((0, keeping_room(20, 60), [0] * 10)))
        assert not torch.isinf(processor.apply(torch.zeros(1, 6))).any()

    def test_a_marker_that_was_begun_may_end(self, processor: LastInsertion) -> None:
        processor.update_state(adds((0, keeping_room(10, 5), [0] * 9)))
        within = torch.tensor([[FORBIDDEN, 1.0, FORBIDDEN, FORBIDDEN, 2.0, FORBIDDEN]])
        assert torch.equal(processor.apply(within.clone()), within)

    def test_follows_requests_that_move_and_leave(self, processor: LastInsertion) -> None:
        processor.update_state(adds((0, keeping_room(10, 5), [0] * 9), (1, SamplingParams(), [])))
        swap = (0, 1, MoveDirectionality.SWAP)
        processor.update_state(BatchUpdate(2, removed=[], added=[], moved=[swap]))
        assert torch.isinf(processor.apply(torch.zeros(2, 6))).any(dim=1).tolist() == [False, True]
        processor.update_state(BatchUpdate(1, removed=[1], added=[], moved=[]))
        assert not torch.isinf(processor.apply(torch.zeros(1, 6))).any()


def keeping_room(max_tokens: int, longest: int) -> SamplingParams:
    return SamplingParams(extra_args=last_insertion_arguments(max_tokens, longest))


def adds(*requests: tuple[int, SamplingParams, list[int]]) -> BatchUpdate:
    added = [(row, params, None, written) for row, params, written in requests]
    return BatchUpdate(len(requests), removed=[], added=added, moved=[])
