"""What a small transformer is told besides its latents: where each token is, and what the stream's first noise chose.

RoPE alone gives no absolute position, so three coordinate planes join the latents. In the opening chunk every token
also sees the first latent pixel of the chunk: at the first denoising step that is noise, and it chooses what the prompt
leaves open (see `training.generator`).
"""

import math

import torch
from torch import Tensor


def input_channels(channels: int) -> int:
    """Input channels of a transformer that is told these things, for latents of `channels` channels."""
    return 2 * channels + 3


def with_coordinates(latents: Tensor, opening: int) -> Tensor:
    """Append y, x and cos(3 pi y), each in [-1, 1], and C planes of the first pixel, which are 0 beyond `opening` frames.

    latents: [B, C, F, h, w], of which the first `opening` frames belong to the stream's first chunk. Returns [B, 2 C + 3, F, h, w].
    """
    batch, _, frames, height, width = latents.shape
    y = torch.linspace(-1, 1, height, device=latents.device, dtype=latents.dtype)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=latents.device, dtype=latents.dtype)[None].expand(height, width)
    planes = torch.stack([y, x, torch.cos(3 * math.pi * y)])[None, :, None].expand(batch, -1, frames, -1, -1)
    first = latents[:, :, :1, :1, :1].expand_as(latents).clone()
    first[:, :, opening:] = 0
    return torch.cat([latents, planes, first], 1)
