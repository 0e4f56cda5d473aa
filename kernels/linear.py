"""A linear layer, and the GELU behind it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@lru_cache
def _onednn_computes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """A linear layer: [..., inputs], [outputs, inputs], [outputs] -> [..., outputs]; with `gelu`, GELU of it, in its tanh form.
    No gradients.

    On a CPU oneDNN is called directly: it computes GELU inside the product, and PyTorch's own way to it is longer (bfloat16) or
    leads to another library (float32). The compiler fuses by itself.
    """
    if x.is_cpu and not torch.compiler.is_compiling() and _onednn_computes(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *(("gelu", [], "tanh") if gelu else ("none", [], "")))
    out = F.linear(x, weight, bias)
    return F.gelu(out, approximate="tanh") if gelu else out
