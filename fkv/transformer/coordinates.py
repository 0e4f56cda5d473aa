"""Input channels of a small transformer besides its latents: where a token is, and the noise that decides its chunk.

RoPE alone gives no absolute position, so four coordinate planes join the latents. In the opening chunk every token also
sees the first latent pixel of the chunk: at the first denoising step that is noise, and it decides what the prompt
leaves open (see `fkv.world.tensors.genes_of`). A model with events sees that pixel in every chunk and at every step,
and also which of `LEVELS` each of its channels exceeds: choices between words are steps of the noise, which a network
learns slowly.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

LEVELS = tuple(sorted({*(i / 8 for i in range(1, 8)), *(i / 5 for i in range(1, 5))}))  # shares of a normal variable


def input_channels(channels: int, events: bool = False) -> int:
    """Return the input channels of a transformer with coordinates, for latents of `channels` channels.

    Args:
        channels: Channels of the latents.
        events: Whether the transformer also sees the first latent pixel of later chunks, and its levels.
    """
    return 2 * channels + 4 + events * (1 + len(LEVELS)) * channels


def with_coordinates(latents: Tensor, chunk: int, opening: bool, events: bool = False) -> Tensor:
    """Append coordinates and the first pixel of the noise to latents.

    The four coordinate planes are y, x, cos(3 pi y) and the place in the chunk, each from -1 to 1. The next C planes
    are the first latent pixel of the opening chunk, and 0 in all other chunks. With `events`, C more planes are the
    first latent pixel of every later chunk, which decides what happens in it, and 0 in the opening chunk; the last ones
    say for every chunk's pixel whether it is above (1/2) or below (-1/2) each level.

    Args:
        latents: Whole chunks, [B, C, F, h, w].
        chunk: Latent frames of a chunk.
        opening: Whether the first chunk opens the stream.
        events: Whether to append the planes of later chunks.

    Returns:
        [B, `input_channels(C, events)`, F, h, w].
    """
    batch, _, *size = latents.shape
    planes = _planes(chunk, *size, latents.device, latents.dtype)
    first = torch.zeros_like(latents)
    if opening:
        first[:, :, :chunk] = latents[:, :, :1, :1, :1]
    parts = [latents, planes.expand(batch, -1, -1, -1, -1), first]
    if events:
        pixel = latents[:, :, ::chunk, :1, :1]
        above = torch.where(pixel[:, :, None] > _thresholds(pixel.device, pixel.dtype), 0.5, -0.5).to(pixel.dtype)
        later = pixel.clone()
        if opening:
            later[:, :, 0] = 0
        decisive = torch.cat([later, above.flatten(1, 2)], 1)
        parts.append(decisive.repeat_interleave(chunk, 2).expand(-1, -1, -1, *size[1:]))
    return torch.cat(parts, 1)


def with_first_pixels(latents: Tensor, noise: Tensor, chunk: int) -> Tensor:
    """Put the first pixel of the noise that every chunk began with into the latents of a later denoising step.

    With `events`, that pixel decides the chunk, and each step has to see it: at 3/4 of noise, a quarter of the signal
    does not show what the step before chose.

    Args:
        latents: Whole chunks, [B, F, C, h, w].
        noise: What they began with, of the same shape.
        chunk: Latent frames of a chunk.
    """
    latents = latents.clone()
    latents[:, ::chunk, :, 0, 0] = noise[:, ::chunk, :, 0, 0]
    return latents


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _thresholds(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the values that a normal variable exceeds with the probabilities 1 - `LEVELS`, [levels, 1, 1, 1]."""
    return torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))[:, None, None, None].to(device, dtype)


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
