"""The widening half of a feed-forward layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _by_onednn(x: Tensor) -> bool:
    """Whether oneDNN can compute GELU inside the product. PyTorch's own takes a CPU as long again, and the compiler fuses by itself."""
    if torch.compiler.is_compiling() or not x.is_cpu or not torch.backends.mkldnn.is_available():
        return False
    return x.dtype == torch.float32 or x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU, in its tanh form, of a linear layer: [..., inputs], [outputs, inputs], [outputs] -> [..., outputs]. No gradients."""
    if _by_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")
