"""A linear layer, and the GELU behind it; in 16, 32 or 8 bits."""

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
PACK_LIMIT_ELEMENTS = 2**20
"""Numbers in a weight from which on `packed` makes no copy."""


@lru_cache
def multiplies_fp8(device: str) -> bool:
    """Whether PyTorch multiplies 8-bit numbers with a scale per row there: on GPUs from Hopper on, and where oneDNN does on a CPU."""
    x, scale = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn), torch.ones(16, 1, device=device)
    try:
        torch._scaled_mm(x, x.t(), scale, scale.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


def _linear_fp8(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x is scaled row by row so that its largest number is the largest that 8 bits hold."""
    rows = x.flatten(0, -2)
    scale = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True).float().clamp(min=1e-12) / FP8_MAX
    narrow, ones = (rows / scale).to(weight.dtype), scale.new_ones(1, len(weight))
    out = torch._scaled_mm(narrow, weight.t(), scale, ones, bias, out_dtype=x.dtype, use_fast_accum=x.is_cuda)
    return out.unflatten(0, x.shape[:-1])


def _gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, which is `x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x**3))`; a processor computes that in half the time
    of PyTorch's tanh. In 16 bits PyTorch rounds once, at the end."""
    if not x.is_cpu or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    return torch.addcmul(x.new_tensor(GELU_SLOPE), x, x, value=0.044715 * GELU_SLOPE).mul_(x).sigmoid_().mul_(x)


def linear_torch(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """`linear` as PyTorch computes it."""
    out = F.linear(x, weight, bias)
    return _gelu(out) if gelu else out


def linear_onednn(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """`linear` as one call of oneDNN, which computes GELU inside the product; on CPUs, see `computes_bfloat16`."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *(("gelu", [], "tanh") if gelu else ("none", [], "")))


def _direct(x: Tensor) -> bool:
    """Whether layers of such numbers are oneDNN's, called directly."""
    return x.is_cpu and x.dtype == torch.bfloat16 and computes_bfloat16()


def packed(weight: Tensor) -> Tensor:
    """A copy of a weight for `linear` alone, in the order in which oneDNN multiplies it and which it otherwise makes at every call:
    chunks of the tiny model take 4 % less time, with the same pictures. The weight itself where `linear` does not call oneDNN, and from
    `PACK_LIMIT_ELEMENTS` numbers on, since such a weight is multiplied by so many tokens that its order costs nothing."""
    if not _direct(weight) or weight.numel() >= PACK_LIMIT_ELEMENTS:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight, 1)


@by_all_threads
def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, fast: bool = False) -> Tensor:
    """A linear layer: [..., inputs], [outputs, inputs], [outputs] -> [..., outputs]; with `gelu`, GELU of it, in its tanh form.
    No gradients.

    A weight may be `packed`. One in 8 bits is widened to x's type; `fast`, x is narrowed instead, which needs
    `multiplies_fp8`, a bfloat16 x and numbers of inputs and outputs that 16 divides.

    On a CPU in bfloat16, oneDNN is called directly, where PyTorch's own way leads, too, only longer. In float32 PyTorch takes another
    library, with which chunks of the tiny model took 0.7 to 1.06 times as long as with oneDNN. The compiler fuses by itself.
    """
    if fast and weight.element_size() == 1:
        out = _linear_fp8(x, weight, bias)
        return _gelu(out) if gelu else out
    direct = not torch.compiler.is_compiling() and _direct(x)
    return (linear_onednn if direct else linear_torch)(x, weight.to(x.dtype), bias, gelu)
