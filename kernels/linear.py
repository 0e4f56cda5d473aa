"""A linear layer, and the GELU behind it; in 16, 32 or 8 bits."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .onednn import onednn_computes

LARGEST = torch.finfo(torch.float8_e4m3fn).max


@lru_cache
def multiplies_in_eight_bits(device: str) -> bool:
    """Whether PyTorch multiplies 8-bit numbers with a scale per row there: on GPUs from Hopper on, and where oneDNN does on a CPU."""
    x, scale = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn), torch.ones(16, 1, device=device)
    try:
        torch._scaled_mm(x, x.t(), scale, scale.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


def _in_eight_bits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x is scaled row by row so that its largest number is the largest that 8 bits hold."""
    rows = x.flatten(0, -2)
    scale = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    narrow, ones = (rows / scale).to(weight.dtype), scale.new_ones(1, len(weight))
    out = torch._scaled_mm(narrow, weight.t(), scale, ones, bias, out_dtype=x.dtype, use_fast_accum=x.is_cuda)
    return out.unflatten(0, x.shape[:-1])


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, fast: bool = False) -> Tensor:
    """A linear layer: [..., inputs], [outputs, inputs], [outputs] -> [..., outputs]; with `gelu`, GELU of it, in its tanh form.
    No gradients.

    A weight in 8 bits is widened to x's type; `fast`, x is narrowed instead, which needs `multiplies_in_eight_bits`, a bfloat16 x
    and numbers of inputs and outputs that 16 divides.

    On a CPU oneDNN is called directly: it computes GELU inside the product, and PyTorch's own way to it is longer (bfloat16) or
    leads to another library (float32). The compiler fuses by itself.
    """
    if fast and weight.element_size() == 1:
        out = _in_eight_bits(x, weight, bias)
    else:
        weight = weight.to(x.dtype)
        if x.is_cpu and not torch.compiler.is_compiling() and onednn_computes(x.dtype):
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *(("gelu", [], "tanh") if gelu else ("none", [], "")))
        out = F.linear(x, weight, bias)
    return F.gelu(out, approximate="tanh") if gelu else out
