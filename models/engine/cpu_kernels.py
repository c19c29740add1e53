"""Layers that vLLM has a kernel for on CPUs, and does not use it.

It leaves them to torch.compile, which takes minutes on a CPU; without that each is half a dozen
small operations, in every layer of the model, for every token. They are registered by importing
this, so never do on a GPU.
"""

from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from vllm import ir
from vllm.model_executor.layers.activation import SiluAndMul

from models.engine.lifeline import Lifeline

PROVIDER: Final = "cpu_kernels"
PRIORITY: Final = MappingProxyType({"rms_norm": PROVIDER, "fused_add_rms_norm": PROVIDER})
"""The argument `ir_op_priority` of vLLM's engine that has these norms used."""


def _is_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    """Whether the kernel can take this: all of one type, and no part of a norm."""
    return variance_size is None and weight is not None and weight.dtype == x.dtype


def _is_residual_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return _is_norm(x, weight, epsilon, variance_size) and x_residual.dtype == x.dtype


@ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_is_norm)  # type: ignore[untyped-decorator]
def rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> Tensor:
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


@ir.ops.fused_add_rms_norm.register_impl(  # type: ignore[untyped-decorator]
    PROVIDER, supports_args=_is_residual_norm, inplace=True
)
def fused_add_rms_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


@SiluAndMul.register_oot(name="SiluAndMul")
class CpuSiluAndMul(SiluAndMul):  # type: ignore[misc]
    def forward_cpu(self, x: Tensor) -> Tensor:
        output = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        torch.ops._C.silu_and_mul(output, x)
        return output


class CpuWorker(Lifeline):
    """Mixed into vLLM's worker; with it these kernels come into its process."""
