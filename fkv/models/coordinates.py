"""What a small transformer is told besides its latents: where each token is, and what the stream's first noise chose.

RoPE alone gives no absolute position, so four coordinate planes join the latents. In the opening chunk every token
also sees the first latent pixel of the chunk: at the first denoising step that is noise, and it chooses what the prompt
leaves open (see `training.data.genes_of`).
"""

import math

import torch
from torch import Tensor


def input_channels(channels: int) -> int:
    """Input channels of a transformer that is told these things, for latents of `channels` channels."""
    return 2 * channels + 4


def with_coordinates(latents: Tensor, chunk: int, opening: bool) -> Tensor:
    """Append y, x, cos(3 pi y) and the place in the chunk, each in [-1, 1], and C planes of the first pixel, 0 but in the opening chunk.

    latents: [B, C, F, h, w], whole chunks of `chunk` frames; with `opening` the first one opens the stream.
    Returns [B, 2 C + 4, F, h, w].
    """
    batch, _, frames, height, width = latents.shape

    def ramp(count: int) -> Tensor:
        return torch.linspace(-1, 1, count, device=latents.device, dtype=latents.dtype)

    y, x = ramp(height)[None, :, None], ramp(width)[None, None]
    place = ramp(chunk).repeat(frames // chunk)[:, None, None]
    planes = torch.stack([each.expand(frames, height, width) for each in (y, x, torch.cos(3 * math.pi * y), place)])
    first = latents[:, :, :1, :1, :1].expand_as(latents).clone()
    first[:, :, chunk if opening else 0 :] = 0
    return torch.cat([latents, planes[None].expand(batch, -1, -1, -1, -1), first], 1)
