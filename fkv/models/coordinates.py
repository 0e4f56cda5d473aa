"""Absolute position for a small transformer: RoPE alone gives none, so three coordinate channels join the latents."""

import math

import torch
from torch import Tensor

CHANNELS = 3


def with_coordinates(latents: Tensor) -> Tensor:
    """Append y, x and cos(3 pi y), each in [-1, 1]: [B, C, F, h, w] -> [B, C + 3, F, h, w]."""
    batch, _, frames, height, width = latents.shape
    y = torch.linspace(-1, 1, height, device=latents.device, dtype=latents.dtype)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=latents.device, dtype=latents.dtype)[None].expand(height, width)
    planes = torch.stack([y, x, torch.cos(3 * math.pi * y)])[None, :, None]
    return torch.cat([latents, planes.expand(batch, -1, frames, -1, -1)], 1)
