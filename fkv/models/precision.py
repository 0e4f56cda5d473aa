"""In which type each weight of the transformer is stored, and in which it computes: `fp8` stores in 8 bits what `FP8_LAYERS` names,
`fp8-fast` multiplies it in 8 bits too."""

from __future__ import annotations

import re

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from fkv.kernels import linear, multiplies_fp8

COMPUTE = {  # the names are also in fkv.models.release.CHOICES
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8": torch.bfloat16,
    "fp8-fast": torch.bfloat16,
}


def native_precision(device: str | torch.device) -> str:
    """bf16 on CUDA and on CPUs that multiply it in hardware (AVX-512 BF16), fp32 elsewhere."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if torch.device(device).type == "cuda" or known.get("avx512_bf16") else "fp32"


def check_precision(precision: str, device: str) -> None:
    """Raises ValueError for a precision that the device does not compute in."""
    if precision == "fp8-fast" and not multiplies_fp8(device):
        raise ValueError(
            f"{device} does not multiply 8-bit numbers here; a GPU from Hopper on does. Choose fp8, which only stores them"
        )


FP8_LAYERS = re.compile(r"blocks\.\d+\.(attn2\.to_[qkv]|attn2\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)")
"""Layers whose weights fp8 stores in 8 bits. Self-attention's are not among them: the stream keeps those fused, in head order."""


class Fp8Linear(nn.Linear):
    """A linear layer that stores its weight in 8 bits, and widens it while it runs unless it is `fast`."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, fast=self.fast)


def stored_as(model: WanTransformer3DModel, name: str, precision: str) -> torch.dtype:
    """The type of one weight: float32 where diffusers keeps it, float8 where fp8 stores it so, else the compute type."""
    if set(name.split(".")) & set(model._keep_in_fp32_modules or ()):
        return torch.float32
    if precision.startswith("fp8") and name.endswith(".weight") and FP8_LAYERS.fullmatch(name.removesuffix(".weight")):
        return torch.float8_e4m3fn
    return COMPUTE[precision]


def precision_of(model: WanTransformer3DModel) -> str:
    """The precision by name, as in `COMPUTE`."""
    narrow, dtype = model.blocks[0].ffn.net[2], model.blocks[0].attn1.to_q.weight.dtype
    if isinstance(narrow, Fp8Linear):
        return "fp8-fast" if narrow.fast else "fp8"
    return next((name for name, computes in COMPUTE.items() if computes == dtype), str(dtype).removeprefix("torch."))


def use_fp8(model: WanTransformer3DModel, precision: str) -> None:
    """Make the layers of `FP8_LAYERS` such as `precision` asks for."""
    for name, module in model.named_modules():
        if precision.startswith("fp8") and FP8_LAYERS.fullmatch(name):
            module.__class__, module.fast = Fp8Linear, precision == "fp8-fast"
            module.weight.data = module.weight.data.to(torch.float8_e4m3fn)
