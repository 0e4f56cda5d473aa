"""In which type each weight of the transformer is stored, and in which type products are computed.

`fp8` stores the layers of `FP8_LAYERS` in fp8 and widens them to bfloat16 for products; `fp8-fast` multiplies in fp8
too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from fkv.kernels import linear, multiplies_fp8

if TYPE_CHECKING:  # importing diffusers takes longer than loading the shipped model
    from diffusers import WanTransformer3DModel

COMPUTE = {  # the names are also in fkv.models.release.CHOICES
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8": torch.bfloat16,
    "fp8-fast": torch.bfloat16,
}

# Layers whose weights fp8 stores in fp8. Self-attention's are not among them: the stream caches those fused, in head
# order.
FP8_LAYERS = re.compile(r"blocks\.\d+\.(attn2\.to_[qkv]|attn2\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)")


def native_precision(device: str | torch.device) -> str:
    """Return bf16 on CUDA and on CPUs that multiply it in hardware (AVX-512 BF16), fp32 elsewhere."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if torch.device(device).type == "cuda" or capabilities.get("avx512_bf16") else "fp32"


def check_precision(precision: str, device: str) -> None:
    """Check that a device computes in a precision.

    Raises:
        ValueError: It does not.
    """
    if precision == "fp8-fast" and not multiplies_fp8(device):
        raise ValueError(
            f"{device} does not multiply fp8 here; a GPU from Hopper on does. "
            f"Choose the precision fp8, which only stores it"
        )


class Fp8Linear(nn.Linear):
    """A linear layer with an fp8 weight, which is widened for the product unless the layer is `fast`."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, fast=self.fast)


def stored_as(model: WanTransformer3DModel, name: str, precision: str) -> torch.dtype:
    """Return the type of one weight: float32 where diffusers keeps it, fp8 in `FP8_LAYERS`, else the compute type.

    Args:
        model: The model that the weight belongs to.
        name: Of the weight, as in the model's state dict.
        precision: A key of `COMPUTE`.
    """
    if set(name.split(".")) & set(model._keep_in_fp32_modules or ()):
        return torch.float32
    if precision.startswith("fp8") and name.endswith(".weight") and FP8_LAYERS.fullmatch(name.removesuffix(".weight")):
        return torch.float8_e4m3fn
    return COMPUTE[precision]


def precision_of(model: WanTransformer3DModel) -> str:
    """Return the precision of a model by name, a key of `COMPUTE`, or the name of another type."""
    block = model.blocks[0]
    down_proj = block.ffn.net[2]
    dtype = block.attn1.to_q.weight.dtype
    if isinstance(down_proj, Fp8Linear):
        return "fp8-fast" if down_proj.fast else "fp8"
    return next((name for name, computes in COMPUTE.items() if computes == dtype), str(dtype).removeprefix("torch."))


def use_fp8(model: WanTransformer3DModel, precision: str) -> None:
    """Convert the layers of `FP8_LAYERS` to fp8 in place where `precision` asks for it."""
    if not precision.startswith("fp8"):
        return
    for name, module in model.named_modules():
        if FP8_LAYERS.fullmatch(name):
            module.__class__ = Fp8Linear
            layer = cast(Fp8Linear, module)
            layer.fast = precision == "fp8-fast"
            layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)
