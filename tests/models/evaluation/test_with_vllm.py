"""The mechanisms on the real engine, with the default model."""

from typing import TYPE_CHECKING

import pytest
from market import BagOfWords, Readers, an_auction

from models.contract.prompt import Layout
from models.engine.interface import Sampling
from models.evaluation.mechanisms.catalogue import MECHANISMS, Parts
from models.evaluation.mechanisms.sampled import Sampler
from models.evaluation.policy import Policy
from models.evaluation.relevance import EmbeddingRelevance
from models.simulation.completions import Completions, CompletionStore
from models.simulation.objective import Objective

if TYPE_CHECKING:
    from models.engine.vllm import VllmEngine

_UNAVOIDABLE = {"truncated", "duplicate"}
"""What the grammar cannot forbid."""


@pytest.fixture
def parts(vllm_engine: "VllmEngine") -> Parts:
    completions = Completions(vllm_engine, CompletionStore(None))
    policy = Policy(completions, Layout.INLINE, Sampling(max_tokens=48), max_ads=3)
    sampler = Sampler(policy, Readers(), Objective(), count=6)
    return Parts(policy, sampler, EmbeddingRelevance(BagOfWords()), aligned=policy)


@pytest.mark.parametrize("name", list(MECHANISMS))
async def test_every_mechanism_answers_without_a_fault(name: str, parts: Parts) -> None:
    outcome = await MECHANISMS[name](parts).answer(an_auction())
    assert outcome.reading.answer.strip()
    assert {fault.kind.value for fault in outcome.reading.faults} <= _UNAVOIDABLE
    assert outcome.completion_tokens > 0


async def test_ads_that_were_chosen_beforehand_are_written(parts: Parts) -> None:
    outcome = await MECHANISMS["segment-auction"](parts).answer(an_auction())
    assert len(outcome.prices) == 2


async def test_draws_of_one_auction_read_their_prompt_once(parts: Parts) -> None:
    scored = await parts.sampler.draws(an_auction(5))
    usage = [one.draw.completion for one in scored]
    assert len({one.draw.completion.text for one in scored}) > 1
    # All but the last, unfinished block of every prompt but the first one's.
    assert sum(one.cached_tokens for one in usage) > 0.7 * sum(one.prompt_tokens for one in usage)
