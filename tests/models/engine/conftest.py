"""What tests of both engines share."""

from typing import Any

import pytest

from models.provision import ServableModel


@pytest.fixture(scope="package")
def at_sign_bias(servable_model: ServableModel) -> dict[int, float]:
    """A logit bias by token that makes every token with an `@` far likelier."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(servable_model.path)
    return {token: 12.0 for text, token in tokenizer.get_vocab().items() if "@" in text}
