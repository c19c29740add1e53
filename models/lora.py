"""A LoRA adapter that ships: what identifies it, and how it becomes part of the weights.

Merged once, when a model is prepared, it costs nothing to serve; applied at run time it would cost
two thirds of a CPU's throughput. It is plain arithmetic, W + (alpha / r) * B @ A, so serving needs
no training library. Knows nothing of where models are kept; torch is imported when it merges.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MANIFEST_FILE = "manifest.json"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


class AdapterError(Exception):
    """The adapter is damaged, or belongs to other weights; the message says which file or layer."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A directory with an adapter in PEFT's format and a manifest that holds its hash."""

    directory: Path

    def sha256(self) -> str:
        """Return the hash of the adapter's weights as its manifest has it.

        Raises AdapterError where a file is missing or the weights are not those.
        """
        try:
            manifest = json.loads((self.directory / MANIFEST_FILE).read_text())
            with (self.directory / ADAPTER_FILE).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != manifest["sha256"]:
                raise AdapterError(f"{self.directory / ADAPTER_FILE} is damaged: reinstall it")
            return found
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdapterError(
                f"{self.directory} is no adapter: {type(error).__name__}: {error}"
            ) from error


def merge(model: Any, directory: Path) -> int:
    """Add the adapter in `directory` to the weights of `model`; return how many layers changed.

    model: a `torch.nn.Module` in float32, so that small changes do not vanish in rounding.
    Raises AdapterError where a layer of the adapter does not fit the model.
    """
    import torch
    from safetensors.torch import load_file

    config = json.loads((directory / CONFIG_FILE).read_text())
    scale = config["lora_alpha"] / config["r"]
    factors = load_file(directory / ADAPTER_FILE)
    weights = dict(model.named_parameters())
    layers = sorted(name.removesuffix(_DOWN) for name in factors if name.endswith(_DOWN))
    if not layers or len(factors) != 2 * len(layers):
        raise AdapterError(f"{directory / ADAPTER_FILE} holds more, or less, than pairs of factors")
    for layer in layers:
        weight = weights.get(f"{layer.removeprefix(_PREFIX)}.weight")
        change = scale * (factors[layer + _UP].float() @ factors[layer + _DOWN].float())
        if weight is None or weight.shape != change.shape:
            raise AdapterError(f"The adapter's layer {layer} does not fit these weights")
        with torch.no_grad():
            weight += change
    return len(layers)
