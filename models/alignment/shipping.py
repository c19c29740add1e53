"""From a trained adapter to one that ships: bfloat16 weights, configuration, manifest."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.contract.prompt import CONTRACT_VERSION, Layout
from models.lora import ADAPTER_FILE, CONFIG_FILE, MANIFEST_FILE

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 12 << 20
"""What a repository can bear."""
_KEPT = ("base_model_name_or_path", "lora_alpha", "peft_type", "r", "target_modules", "task_type")


@dataclass(frozen=True, slots=True)
class Aligned:
    """What a manifest tells. base: the name of the weights that it is merged into."""

    base: str
    layout: Layout
    recipe: str


def ship(
    adapter: Path, target: Path, aligned: Aligned, *, start: Path | None = None, share: float = 1.0
) -> None:
    """Write the adapter in `adapter` to `target`, whose own is replaced once all is written.

    share: how far to go, 0 to 1, to its weights from those of `start`, the adapter that its
    training began with: often most of what was learnt for some of its price (WiSE-FT, arXiv
    2109.01903; here on LoRA's two factors, which differ little after a short training).
    Raises ValueError where the result is too big or `start` is of another shape.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / ADAPTER_FILE)
    if start is not None:
        weights = _between(load_file(start / ADAPTER_FILE), weights, share)
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    shipped = partial / ADAPTER_FILE
    save_file(
        {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()},
        shipped,
        metadata={"format": "pt"},
    )
    if (size := shipped.stat().st_size) > MOST_BYTES:
        shutil.rmtree(partial)
        raise ValueError(f"The adapter has {size:,} bytes; at most {MOST_BYTES:,} ship")
    config = json.loads((adapter / CONFIG_FILE).read_text())
    kept = {name: config[name] for name in _KEPT} | {"base_model_name_or_path": aligned.base}
    kept["target_modules"] = sorted(kept["target_modules"])
    (partial / CONFIG_FILE).write_text(json.dumps(kept, indent=2) + "\n")
    manifest = {
        "sha256": hashlib.sha256(shipped.read_bytes()).hexdigest(),
        "base": aligned.base,
        "contract": CONTRACT_VERSION,
        "layout": aligned.layout,
        "recipe": aligned.recipe,
    }
    (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    target.mkdir(exist_ok=True)
    for name in (ADAPTER_FILE, CONFIG_FILE, MANIFEST_FILE):
        (partial / name).replace(target / name)
    partial.rmdir()


def _between(
    start: "Mapping[str, Tensor]", end: "Mapping[str, Tensor]", share: float
) -> "dict[str, Tensor]":
    shapes = [{name: weight.shape for name, weight in of.items()} for of in (start, end)]
    if shapes[0] != shapes[1]:
        raise ValueError("Only adapters of the same layers and rank have weights between them")
    return {
        name: (1 - share) * start[name].float() + share * weight.float()
        for name, weight in end.items()
    }


def servable_policy(base: Path, adapter: Path, target: Path) -> Path:
    """Write the servable model in `base` with `adapter` merged into it to `target`, for sampling.

    What is at `target` already is taken as it is.
    """
    if (target / "config.json").exists():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from models.lora import merge

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merge(model, adapter)
    partial = target.with_name(target.name + ".partial")
    model.to(torch.bfloat16).save_pretrained(partial)
    AutoTokenizer.from_pretrained(base).save_pretrained(partial)
    partial.rename(target)
    return target
