"""Top-k and top-p: what may be drawn is what vLLM's own sampler lets be drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch
from vllm.v1.sample.sampler import Sampler

from models.engine.cpu_kernels import PROVIDER
from models.engine.nucleus import Nucleus, is_nucleus, least_logits, nucleus_arguments
from models.engine.vllm import VllmOptions, _arguments
from models.provision import ServableModel

VOCABULARY = 50
FORBIDDEN = float("-inf")

wishes = st.tuples(st.integers(1, VOCABULARY + 10), st.floats(0.01, 0.99))


def logits_of(rows: int, seed: int) -> Tensor:
    """Different ones, so that no two tokens are as likely; a few forbidden, as by a grammar."""
    chance = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(VOCABULARY, generator=chance) for _ in range(rows)])
    logits = order.float() / 7
    logits[:, :5] = FORBIDDEN
    return logits


def adds(*requests: tuple[int, SamplingParams]) -> BatchUpdate:
    added = [(row, params, None, []) for row, params in requests]
    return BatchUpdate(len(requests), removed=[], added=added, moved=[])


def nucleus() -> Nucleus:
    return Nucleus(None, torch.device("cpu"), False)  # type: ignore[arg-type]


def wanting(top_k: int, top_p: float) -> SamplingParams:
    return SamplingParams(**nucleus_arguments(top_k, top_p))


def left(logits: Tensor) -> list[int]:
    """How many tokens may be drawn, by row."""
    return (logits > FORBIDDEN).sum(dim=1).tolist()


@given(st.lists(wishes, min_size=1, max_size=4), st.integers(0, 1000))
def test_leaves_what_vllm_leaves(wished: list[tuple[int, float]], seed: int) -> None:
    logits = logits_of(len(wished), seed)
    top_k = torch.tensor([min(k, VOCABULARY) for k, _ in wished])
    top_p = torch.tensor([p for _, p in wished])
    theirs = apply_top_k_top_p_pytorch(logits.clone(), top_k, top_p)
    least = least_logits(logits, top_k, top_p)
    assert torch.equal(logits.masked_fill(logits < least, FORBIDDEN), theirs)


@given(wishes, st.sampled_from([0.3, 0.7, 1.5]), st.integers(0, 1000))
def test_counts_after_the_temperature_as_vllm_does(
    wished: tuple[int, float], temperature: float, seed: int
) -> None:
    top_k, top_p = min(wished[0], VOCABULARY), wished[1]
    one = nucleus()
    one.update_state(adds((0, wanting(top_k, top_p))))
    ours = drawn_from(logits_of(1, seed), temperature, LogitsProcessors([one]))
    theirs = drawn_from(logits_of(1, seed), temperature, LogitsProcessors(), (top_k, top_p))
    assert torch.equal(ours, theirs)


def drawn_from(
    logits: Tensor,
    temperature: float,
    processors: LogitsProcessors,
    top: tuple[int, float] | None = None,
) -> Tensor:
    """What vLLM's sampler draws a token from: logits."""
    asked = SamplingMetadata(
        temperature=torch.tensor([temperature]),
        all_greedy=False,
        all_random=True,
        top_k=None if top is None else torch.tensor([top[0]]),
        top_p=None if top is None else torch.tensor([top[1]]),
        generators={},
        max_num_logprobs=None,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=torch.zeros(1),
        presence_penalties=torch.zeros(1),
        repetition_penalties=torch.ones(1),
        output_token_ids=[[]],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=processors,
    )
    _, processed = Sampler("processed_logits").sample(logits, asked)
    assert processed is not None
    return processed


def test_only_requests_that_ask_for_it_are_touched() -> None:
    one = nucleus()
    one.update_state(adds((0, wanting(3, 0.999)), (1, SamplingParams()), (2, wanting(1, 0.5))))
    assert left(one.apply(logits_of(3, 1))) == [3, VOCABULARY - 5, 1]


def test_follows_requests_that_move_and_leave() -> None:
    one = nucleus()
    one.update_state(adds((0, wanting(3, 0.999)), (1, SamplingParams()), (2, wanting(1, 0.5))))
    swap = (0, 1, MoveDirectionality.SWAP)
    one.update_state(BatchUpdate(2, removed=[2], added=[], moved=[swap]))
    assert left(one.apply(logits_of(2, 1))) == [VOCABULARY - 5, 3]
    one.update_state(BatchUpdate(1, removed=[1], added=[], moved=[]))
    assert left(one.apply(logits_of(1, 1))) == [VOCABULARY - 5]


def test_what_vllm_does_fast_itself_is_left_to_it() -> None:
    assert is_nucleus(top_k=20, top_p=0.8, temperature=0.7)
    assert not is_nucleus(top_k=20, top_p=1, temperature=0.7)
    assert not is_nucleus(top_k=0, top_p=0.8, temperature=0.7)
    assert not is_nucleus(top_k=20, top_p=0.8, temperature=0)


def test_all_requests_of_a_batch_may_ask_for_it() -> None:
    one = nucleus()
    one.update_state(adds((1, wanting(2, 0.999)), (0, wanting(4, 0.999))))
    assert left(one.apply(logits_of(2, 1))) == [4, 2]


def test_equally_likely_tokens_stay_together() -> None:
    one = nucleus()
    one.update_state(adds((0, wanting(2, 0.999))))
    assert left(one.apply(torch.tensor([[3.0, 2.0, 2.0, 1.0]]))) == [3]


@pytest.mark.parametrize(
    ("options", "is_nucleus_on", "are_kernels_on"),
    [
        (VllmOptions(), True, True),
        (VllmOptions(enforce_eager=False), True, False),
        (VllmOptions(extra={"speculative_config": {"method": "ngram"}}), False, True),
        (VllmOptions(extra={"logits_processors": [], "ir_op_priority": {}}), False, False),
    ],
)
def test_engines_on_a_cpu_get_what_makes_them_fast(
    servable_model: ServableModel,
    options: VllmOptions,
    is_nucleus_on: bool,
    are_kernels_on: bool,
) -> None:
    arguments = _arguments(servable_model, options)
    assert (Nucleus in (arguments.logits_processors or ())) is is_nucleus_on
    assert (arguments.ir_op_priority.rms_norm == [PROVIDER]) is are_kernels_on
