"""In which type each weight of the transformer is stored, and in which it computes."""

from __future__ import annotations

import re

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

COMPUTE = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp8": torch.bfloat16}


def native_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 on CUDA and on CPUs that multiply it in hardware (AVX-512 BF16), float32 elsewhere."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if torch.device(device).type == "cuda" or known.get("avx512_bf16") else torch.float32


EIGHT_BIT = re.compile(r"blocks\.\d+\.(attn2\.to_[qkv]|attn2\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)")
"""Layers whose weights fp8 stores in 8 bits. Self-attention's are not among them: the stream keeps those fused, in head order."""


class EightBitLinear(nn.Linear):
    """A linear layer that stores its weight in 8 bits and widens it while it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def stored_as(model: WanTransformer3DModel, name: str, precision: str) -> torch.dtype:
    """The type of one weight: float32 where diffusers keeps it, float8 where fp8 stores it so, else the compute type."""
    if set(name.split(".")) & set(model._keep_in_fp32_modules or ()):
        return torch.float32
    if precision == "fp8" and name.endswith(".weight") and EIGHT_BIT.fullmatch(name.removesuffix(".weight")):
        return torch.float8_e4m3fn
    return COMPUTE[precision]


def use_eight_bits(model: WanTransformer3DModel) -> None:
    """Make the layers of `EIGHT_BIT` widen their weights while they run."""
    for name, module in model.named_modules():
        if EIGHT_BIT.fullmatch(name):
            module.__class__ = EightBitLinear
