"""An adapter merged into the weights answers as PEFT answers with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.lora import ADAPTER_FILE, CONFIG_FILE, MANIFEST_FILE, Adapter, AdapterError, merge


@pytest.fixture
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).eval()


@pytest.fixture
def adapted(base: Any, tmp_path: Path) -> tuple[torch.Tensor, Path]:
    """What PEFT answers with a random adapter, and where that adapter is."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    state = {name: weight.clone() for name, weight in base.state_dict().items()}
    model = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3, 4]])).logits
    model.save_pretrained(tmp_path / "adapter")
    base = model.unload()
    base.load_state_dict(state)
    return logits, tmp_path / "adapter"


def test_equals_what_peft_answers(base: Any, adapted: tuple[torch.Tensor, Path]) -> None:
    expected, directory = adapted
    with torch.no_grad():
        before = base(torch.tensor([[1, 2, 3, 4]])).logits
    layers = merge(base, directory)
    with torch.no_grad():
        found = base(torch.tensor([[1, 2, 3, 4]])).logits

    assert layers == 2 * 7
    assert not torch.allclose(before, expected, atol=1e-2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_refuses_weights_that_it_was_not_made_for(adapted: tuple[torch.Tensor, Path]) -> None:
    with pytest.raises(AdapterError, match="does not fit"):
        merge(torch.nn.Linear(3, 3), adapted[1])


class TestManifest:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        from hashlib import sha256

        (tmp_path / ADAPTER_FILE).write_bytes(b"weights")
        (tmp_path / CONFIG_FILE).write_text("{}")
        manifest = {"sha256": sha256(b"weights").hexdigest()}
        (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest))
        return tmp_path

    def test_identifies_the_weights(self, directory: Path) -> None:
        assert len(Adapter(directory).sha256()) == 64

    def test_a_damaged_file_is_noticed(self, directory: Path) -> None:
        (directory / ADAPTER_FILE).write_bytes(b"weightz")
        with pytest.raises(AdapterError, match="damaged"):
            Adapter(directory).sha256()

    @pytest.mark.parametrize("file", [ADAPTER_FILE, MANIFEST_FILE])
    def test_a_missing_file_is_named(self, directory: Path, file: str) -> None:
        (directory / file).unlink()
        with pytest.raises(AdapterError, match=file):
            Adapter(directory).sha256()
