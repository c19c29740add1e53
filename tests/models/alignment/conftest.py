"""A model small enough to train in a test."""

from typing import Any

import pytest
import torch


@pytest.fixture
def tiny_model() -> Any:
    """A random Llama with grouped heads, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import models.alignment.packing  # noqa: F401  its attention is registered by importing it

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()
