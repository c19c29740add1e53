"""The kernels compute what vLLM computes without them."""

import pytest
import torch
from torch import Tensor
from vllm import ir
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.platforms import current_platform

from models.engine.cpu_kernels import PROVIDER, CpuSiluAndMul

current_platform.import_kernels()  # as vLLM's workers do
TOKENS, WIDTH, EPSILON = 5, 576, 1e-5


def drawn(*shape: int, seed: int = 1) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=chance).to(torch.bfloat16)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """As far as bfloat16 tells."""
    return torch.allclose(ours.float(), theirs.float(), rtol=0.02, atol=0.02)


def test_a_norm() -> None:
    x, weight = drawn(TOKENS, WIDTH), drawn(WIDTH, seed=2)
    ours = ir.ops.rms_norm.impls[PROVIDER].impl_fn(x, weight, EPSILON)
    assert close(ours, ir.ops.rms_norm.impls["native"].impl_fn(x, weight, EPSILON))


def test_a_norm_of_a_sum() -> None:
    x, residual, weight = drawn(TOKENS, WIDTH), drawn(TOKENS, WIDTH, seed=2), drawn(WIDTH, seed=3)
    norm = ir.ops.fused_add_rms_norm.impls
    theirs = norm["native"].impl_fn(x.clone(), residual.clone(), weight, EPSILON)
    ours = norm[PROVIDER].impl_fn(x.clone(), residual.clone(), weight, EPSILON)
    assert all(map(close, ours, theirs))


@pytest.mark.parametrize("weight", [None, drawn(WIDTH).float()])
def test_what_a_kernel_does_not_take_is_left_to_vllm(weight: Tensor | None) -> None:
    x = drawn(TOKENS, WIDTH)
    assert not ir.ops.rms_norm.impls[PROVIDER].supports_args(x, weight, EPSILON)
    assert not ir.ops.fused_add_rms_norm.impls[PROVIDER].supports_args(x, x, weight, EPSILON)


def test_the_activation_that_models_are_built_with() -> None:
    with set_current_vllm_config(VllmConfig()):
        built = SiluAndMul()
    x = drawn(TOKENS, 2 * WIDTH)
    assert isinstance(built, CpuSiluAndMul)
    assert close(built.forward_cpu(x), SiluAndMul.forward_native(x))
