"""A LoRA adapter in training: bfloat16 in the model, float32 in the optimiser.

On a GPU where there is one.
"""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from models.alignment.packing import TREE_ATTENTION


class AdapterTrainer:
    """A base model with a LoRA adapter, and its optimiser (AdamW).

    The frozen weights and the adapter compute in bfloat16; the optimiser's own copy of the adapter
    is float32, since steps of a small learning rate would vanish in bfloat16's rounding.
    """

    def __init__(self, base: str, rank: int, seed: int, adapter: Path | None = None) -> None:
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.bfloat16, attn_implementation=TREE_ATTENTION
        )
        if adapter is None:
            config = LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            self.model: Any = get_peft_model(model, config, autocast_adapter_dtype=False)
        else:
            self.model = PeftModel.from_pretrained(
                model, str(adapter), is_trainable=True, autocast_adapter_dtype=False
            )
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._masters = [weight.detach().float().clone() for weight in self._weights]
        self._optimizer = torch.optim.AdamW(self._masters, betas=(0.9, 0.98), weight_decay=0.0)

    def without_adapter(self) -> AbstractContextManager[None]:
        """A context in which the model is the base model."""
        bare: AbstractContextManager[None] = self.model.disable_adapter()
        return bare

    def update(self, learning_rate: float, max_norm: float = 1.0) -> float:
        """One update along the gradients that backward passes have left; they are cleared.

        Returns their norm before it was clipped to `max_norm`.
        """
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = weight.grad.float() if weight.grad is not None else None
            weight.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self._masters, max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._publish()
        return float(norm)

    def save(self, directory: Path, step: int) -> None:
        """Put what `resume` takes up at `directory`, whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / ".state.partial"
        state = {
            "step": step,
            "masters": self._masters,
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, partial)
        os.replace(partial, directory / "state.pt")

    def finish(self, directory: Path) -> None:
        """Put the adapter at `directory`, whole or not at all: that it is there says that the
        training has come to its end."""
        partial, adapter = directory / "adapter.partial", directory / "adapter"
        shutil.rmtree(partial, ignore_errors=True)
        self.model.save_pretrained(partial)
        shutil.rmtree(adapter, ignore_errors=True)
        os.replace(partial, adapter)

    def resume(self, directory: Path) -> int:
        """Take up what `save` left at `directory`; return its step, 0 where there is nothing."""
        path = directory / "state.pt"
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        for master, saved in zip(self._masters, state["masters"], strict=True):
            master.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._publish()
        return int(state["step"])

    def _publish(self) -> None:
        with torch.no_grad():
            for weight, master in zip(self._weights, self._masters, strict=True):
                weight.copy_(master)
