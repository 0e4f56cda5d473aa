"""A linear layer and the GELU behind it, with weights in float32, bfloat16 or fp8."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .onednn import computes_bfloat16
from .threads import by_all_threads

FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
GELU_SLOPE = math.sqrt(8 / math.pi)
PACK_LIMIT_ELEMENTS = 2**20  # weights of this many elements or more are not packed


@lru_cache
def multiplies_fp8(device: str) -> bool:
    """Whether PyTorch multiplies fp8 with a scale per row: on GPUs from Hopper on, and on CPUs where oneDNN does."""
    x = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones(16, 1, device=device)
    try:
        torch._scaled_mm(x, x.t(), scale, scale.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


def _linear_fp8(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply in fp8; each row of x is scaled so that its largest magnitude is the largest that fp8 holds."""
    rows = x.flatten(0, -2)
    scale = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True).float().clamp(min=1e-12) / FP8_MAX
    narrow = (rows / scale).to(weight.dtype)
    ones = scale.new_ones(1, len(weight))
    out = torch._scaled_mm(narrow, weight.t(), scale, ones, bias, out_dtype=x.dtype, use_fast_accum=x.is_cuda)
    return out.unflatten(0, x.shape[:-1])


def _gelu(x: Tensor) -> Tensor:
    """Compute GELU in its tanh form.

    In float32 on a CPU as `x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x**3))`, which is faster than PyTorch's tanh.
    PyTorch's rounds once, at the end, which bfloat16 needs.
    """
    if not x.is_cpu or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    return torch.addcmul(x.new_tensor(GELU_SLOPE), x, x, value=0.044715 * GELU_SLOPE).mul_(x).sigmoid_().mul_(x)


def linear_torch(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """Compute `linear` with PyTorch."""
    out = F.linear(x, weight, bias)
    return _gelu(out) if gelu else out


def linear_onednn(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """Compute `linear` as one call of oneDNN, GELU included; for CPUs, see `computes_bfloat16`."""
    activation: tuple[str, list, str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *activation)


def _calls_onednn(x: Tensor) -> bool:
    """Whether `linear` calls oneDNN directly for tensors of this type and device."""
    return x.is_cpu and x.dtype == torch.bfloat16 and computes_bfloat16()


def packed(weight: Tensor) -> Tensor:
    """Return a copy of a weight in the memory order that oneDNN otherwise makes for itself at every call.

    Only `linear` can use the copy, and it computes the same with it. Where `linear` does not call oneDNN, and from
    `PACK_LIMIT_ELEMENTS` on, the weight itself is returned: large weights are multiplied by so many tokens that
    ordering them costs nothing in comparison.

    Args:
        weight: [outputs, inputs].
    """
    if not _calls_onednn(weight) or weight.numel() >= PACK_LIMIT_ELEMENTS:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight, 1)


@by_all_threads
def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, fast: bool = False) -> Tensor:
    """Compute a linear layer, without gradients.

    In bfloat16 on a CPU, oneDNN is called directly; PyTorch reaches the same code with more overhead. In float32
    PyTorch calls another library, which is about as fast.

    Args:
        x: [..., inputs].
        weight: [outputs, inputs], of the type of `x`, `packed`, or fp8, which is widened to the type of `x`.
        bias: [outputs].
        gelu: Apply GELU in its tanh form.
        fast: Narrow `x` to fp8 instead of widening an fp8 weight. This needs `multiplies_fp8`, a bfloat16 `x`, and
            inputs and outputs that are multiples of 16.

    Returns:
        [..., outputs] of the type of `x`.
    """
    if fast and weight.element_size() == 1:
        out = _linear_fp8(x, weight, bias)
        return _gelu(out) if gelu else out
    direct = not torch.compiler.is_compiling() and _calls_onednn(x)
    return (linear_onednn if direct else linear_torch)(x, weight.to(x.dtype), bias, gelu)
