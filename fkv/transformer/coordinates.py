"""Input channels of a small transformer besides its latents: where a token is, and the noise that opened the stream.

RoPE alone gives no absolute position, so four coordinate planes join the latents. In the opening chunk every token also
sees the first latent pixel of the chunk: at the first denoising step that is noise, and it decides what the prompt
leaves open (see `fkv.training.data.genes_of`).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def input_channels(channels: int, events: bool = False) -> int:
    """Return the input channels of a transformer with coordinates, for latents of `channels` channels.

    Args:
        channels: Channels of the latents.
        events: Whether the transformer also sees the first latent pixel of later chunks.
    """
    return (3 if events else 2) * channels + 4


def with_coordinates(latents: Tensor, chunk: int, opening: bool, events: bool = False) -> Tensor:
    """Append coordinates and the first pixel of the noise to latents.

    The four coordinate planes are y, x, cos(3 pi y) and the place in the chunk, each from -1 to 1. The next C planes
    are the first latent pixel of the opening chunk, and 0 in all other chunks. With `events`, C more planes are the
    first latent pixel of every later chunk, which decides what happens in it, and 0 in the opening chunk.

    Args:
        latents: Whole chunks, [B, C, F, h, w].
        chunk: Latent frames of a chunk.
        opening: Whether the first chunk opens the stream.
        events: Whether to append the planes of later chunks.

    Returns:
        [B, 2 C + 4, F, h, w], or [B, 3 C + 4, F, h, w] with `events`.
    """
    batch, _, *size = latents.shape
    planes = _planes(chunk, *size, latents.device, latents.dtype)
    first = torch.zeros_like(latents)
    if opening:
        first[:, :, :chunk] = latents[:, :, :1, :1, :1]
    parts = [latents, planes.expand(batch, -1, -1, -1, -1), first]
    if events:
        later = latents[:, :, ::chunk, :1, :1].repeat_interleave(chunk, 2).expand_as(latents).clone()
        if opening:
            later[:, :, :chunk] = 0
        parts.append(later)
    return torch.cat(parts, 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _planes(chunk: int, frames: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the four coordinate planes, [4, frames, height, width]."""

    def ramp(count: int) -> Tensor:
        return torch.linspace(-1, 1, count, device=device, dtype=dtype)

    y = ramp(height)[None, :, None]
    x = ramp(width)[None, None]
    place = ramp(chunk).repeat(frames // chunk)[:, None, None]
    planes = (y, x, torch.cos(3 * math.pi * y), place)
    return torch.stack([plane.expand(frames, height, width) for plane in planes])
