"""Weights in 8 bits: every row of a matrix is whole numbers from -127 to 127 times a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = ".scale"


def packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in 8 bits.

    Args:
        weights: By name, of any floating type. Those with two dimensions or more are packed, row by row of the first.

    Returns:
        The same names, int8 with a scale beside it, or float16.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            found[name] = weight.half()
            continue
        rows = weight.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        found[name] = (rows / scale[:, None]).round().to(torch.int8).view(weight.shape)
        found[name + SCALE] = scale
    return found


def unpacked(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that `packed` stored, those of 8 bits in float32; others as they are."""
    weights = {name: weight for name, weight in found.items() if not name.endswith(SCALE)}
    for name, weight in weights.items():
        if weight.dtype == torch.int8:
            weights[name] = weight.float() * found[name + SCALE].view(-1, *[1] * (weight.ndim - 1))
    return weights
