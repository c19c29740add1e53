"""No ad is begun in an answer that its limit of tokens would cut off within the marker.

Half a marker is neither shown nor charged, and leaves a sentence that leads nowhere. So from where
the longest marker no longer fits, the tokens that could begin one are forbidden, and the text goes
on without. Only where the grammar allows most tokens, which it does in text: within a marker it
allows few, and one that was begun in time has room to end. Runs inside vLLM's workers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_KEY = "last_insertion"
_SPARE_TOKENS = 2
"""A model may write a marker in more tokens than a tokenizer does."""
_SAMPLED_TOKENS = 64
"""Enough to tell text from a marker, where next to none is allowed."""


def last_insertion_arguments(max_tokens: int, longest: int) -> dict[str, int]:
    """The part of vLLM's `extra_args` that has `LastInsertion` keep room for an insertion.

    longest: tokens of the longest marker. Half of an answer is the most that is kept free, or one
    long title would keep all ads out of short answers.
    """
    return {_KEY: max_tokens - min(longest + _SPARE_TOKENS, max_tokens // 2)}


class LastInsertion(LogitsProcessor):  # type: ignore[misc]
    """Forbids, in text, the tokens with an `@`, once an answer has more tokens than asked."""

    def __init__(self, config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        vocabulary = cached_tokenizer_from_config(config.model_config).get_vocab()
        self._beginnings = torch.tensor([n for token, n in vocabulary.items() if "@" in token])
        last, count = len(vocabulary) - 1, min(len(vocabulary), _SAMPLED_TOKENS)
        self._sampled = torch.linspace(0, last, count).long()
        self._wanted: dict[int, tuple[int, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._wanted, batch_update, _wanted)

    def apply(self, logits: Tensor) -> Tensor:
        """logits: [requests, vocabulary]; changed in place."""
        late = [row for row, (last, written) in self._wanted.items() if len(written) > last]
        if late:
            rows = torch.tensor(late)
            allowed = (logits[rows.unsqueeze(1), self._sampled] > float("-inf")).sum(dim=1)
            rows = rows[allowed > len(self._sampled) // 2]
            logits[rows.unsqueeze(1), self._beginnings] = float("-inf")
        return logits


def _wanted(
    params: SamplingParams, prompt: list[int] | None, output: list[int]
) -> tuple[int, list[int]] | None:
    arguments: Mapping[str, int] = params.extra_args or {}
    last = arguments.get(_KEY)
    return None if last is None else (last, output)
