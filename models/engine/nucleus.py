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
            rows = sorted(self._wanted)
            self._rows = torch.tensor(rows, dtype=torch.long)
            self._top_k = torch.tensor([self._wanted[row][0] for row in rows])
            self._top_p = torch.tensor([self._wanted[row][1] for row in rows])

    def apply(self, logits: Tensor) -> Tensor:
        """logits: [requests, vocabulary]; changed in place."""
        if not self._wanted:
            return logits
        is_all = len(self._rows) == len(logits)
        least = least_logits(logits if is_all else logits[self._rows], self._top_k, self._top_p)
        if not is_all:
            anything = torch.full((len(logits), 1), float("-inf"))
            least = anything.index_copy_(0, self._rows, least)
        return logits.masked_fill_(logits < least, float("-inf"))


def least_logits(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return [rows, 1]: the least logit among the fewest likeliest tokens whose probabilities,
    among those of the `top_k` likeliest, add up to `top_p`.

    logits: [rows, vocabulary]; top_k: [rows], 1 or more; top_p: [rows], over 0 to 1.
    """
    likeliest = logits.topk(min(int(top_k.max()), logits.shape[1]), dim=1).values
    is_beyond = torch.arange(likeliest.shape[1]) >= top_k.unsqueeze(1)
    probabilities = likeliest.masked_fill(is_beyond, float("-inf")).softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    is_out = is_beyond | (before >= top_p.unsqueeze(1))
    return likeliest.masked_fill(is_out, float("inf")).amin(dim=1, keepdim=True)


def _wanted(
    params: SamplingParams, prompt: list[int] | None, output: list[int]
) -> tuple[int, float] | None:
    arguments: Mapping[str, tuple[int, float]] = params.extra_args or {}
    return arguments.get(_KEY)
