"""Top-k and top-p (nucleus sampling, arXiv 1904.09751) for vLLM on a CPU, fast.

Where a request asks for both, vLLM sorts its model's whole vocabulary for every token, which takes
longer than all else that a small model does. Here the k likeliest tokens are found, and only those
are sorted. What may be drawn is the same, except that equally likely tokens stay all or none. Runs
inside vLLM's workers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_KEY = "nucleus"


def is_nucleus(top_k: int, top_p: float, temperature: float) -> bool:
    """Whether vLLM would sort the vocabulary although few of its tokens can be drawn."""
    return top_k > 0 and top_p < 1 and temperature > 0


def nucleus_arguments(top_k: int, top_p: float) -> dict[str, object]:
    """The arguments of vLLM's SamplingParams that have `Nucleus` apply these, and not vLLM."""
    return {"top_k": 0, "top_p": 1.0, "extra_args": {_KEY: (top_k, top_p)}}


class Nucleus(LogitsProcessor):  # type: ignore[misc]
    """Masks, in the rows of requests that ask for it, all tokens that may not be drawn."""

    def __init__(self, config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self._wanted: dict[int, tuple[int, float]] = {}
        self._rows = torch.empty(0, dtype=torch.long)
        self._top_k, self._top_p = self._rows, torch.empty(0)

    def is_argmax_invariant(self) -> bool:
        """The likeliest token always stays. vLLM applies such processors after the temperature."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self._wanted, batch_update, _wanted):
            self._rows = torch.tensor(list(self._wanted), dtype=torch.long)
            self._top_k = torch.tensor([top_k for top_k, _ in self._wanted.values()])
            self._top_p = torch.tensor([top_p for _, top_p in self._wanted.values()])

    def apply(self, logits: Tensor) -> Tensor:
        """logits: [requests, vocabulary]."""
        if self._wanted:
            logits[self._rows] = within_nucleus(logits[self._rows], self._top_k, self._top_p)
        return logits


def within_nucleus(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return `logits` with -inf for all but the fewest likeliest tokens whose probabilities, among
    those of the `top_k` likeliest, add up to `top_p`.

    logits: [rows, vocabulary]; top_k: [rows], 1 or more; top_p: [rows], over 0 to 1.
    """
    likeliest = logits.topk(min(int(top_k.max()), logits.shape[1]), dim=1).values
    ranks = torch.arange(likeliest.shape[1])
    likeliest = likeliest.masked_fill(ranks >= top_k.unsqueeze(1), float("-inf"))
    probabilities = likeliest.softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    is_out = (before >= top_p.unsqueeze(1)) | (ranks >= top_k.unsqueeze(1))
    least = likeliest.masked_fill(is_out, float("inf")).amin(dim=1, keepdim=True)
    return logits.masked_fill(logits < least, float("-inf"))


def _wanted(
    params: SamplingParams, prompt: list[int] | None, output: list[int]
) -> tuple[int, float] | None:
    arguments: Mapping[str, tuple[int, float]] = params.extra_args or {}
    return arguments.get(_KEY)
