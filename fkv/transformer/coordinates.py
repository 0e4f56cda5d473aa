"""What a small transformer is told besides its latents: where each token is, and what the stream's first noise chose.

RoPE alone gives no absolute position, so four coordinate planes join the latents. In the opening chunk every token
also sees the first latent pixel of the chunk: at the first denoising step that is noise, and it chooses what the prompt
leaves open (see `training.data.genes_of`).
"""

import math
from functools import lru_cache

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
    batch, _, *size = latents.shape
    planes = _planes(chunk, *size, latents.device, latents.dtype)
    first = torch.zeros_like(latents)
    if opening:
        first[:, :, :chunk] = latents[:, :, :1, :1, :1]
    return torch.cat([latents, planes.expand(batch, -1, -1, -1, -1), first], 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _planes(chunk: int, frames: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The four coordinate planes, [4, frames, height, width]."""

    def ramp(count: int) -> Tensor:
        return torch.linspace(-1, 1, count, device=device, dtype=dtype)

    y, x = ramp(height)[None, :, None], ramp(width)[None, None]
    place = ramp(chunk).repeat(frames // chunk)[:, None, None]
    return torch.stack([each.expand(frames, height, width) for each in (y, x, torch.cos(3 * math.pi * y), place)])
