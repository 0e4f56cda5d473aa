"""The small decoder: TAEHV (Ollin Boer Bohan, github.com/madebyollin/taehv) for Wan 2.1's latents, as a stream.

About ten million parameters instead of the VAE's 127: plain convolutions in space, and in time one remembered frame per
block. Its weights are published as `taew2_1`; module names here give the published weight names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import read, state_dict
from .convert import load_strictly
from .frames import to_frames

WIDTHS = (256, 128, 64, 64)
GROWTH = (1, 2, 2)
"""Channels before, between and after the three stages; frames that each stage makes of one."""


class Clamp(nn.Module):
    """Squash to (-3, 3), almost the identity near 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class MemBlock(nn.Module):
    """A residual block that also sees what it was given for the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor, before: Tensor | None) -> Tensor:
        """Frames x [T, C, H, W]; `before` [1, C, H, W], the last frame of the call before (zeros where there was none)."""
        before = torch.zeros_like(x[:1]) if before is None else before
        return torch.relu(self.conv(torch.cat([x, torch.cat([before, x[:-1]])], 1)) + x)


class TGrow(nn.Module):
    """One frame -> `times` frames."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (self.times, -1)).flatten(0, 1)


class SmallDecoder(nn.Module):
    """Latents to video, 4 frames and 8 x 8 pixels per latent position; a stream begins with a single frame, as the VAE's does."""

    def __init__(self, channels: int = 16, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = [Clamp(), nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU()]
        for wide, narrow, times in zip(widths, widths[1:], GROWTH):
            layers += [MemBlock(wide), MemBlock(wide), MemBlock(wide), nn.Upsample(scale_factor=2), TGrow(wide, times)]
            layers += [nn.Conv2d(wide, narrow, 3, padding=1, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(widths[-1], 3, 3, padding=1))

    def decode(self, latents: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Latents [F, C, h, w], normalised as the transformer makes them -> video [T, 3, 8 h, 8 w] in about [0, 1], and the state.

        state: per block that remembers, the last frame it was given; None starts a stream, whose first three frames are dropped.
        """
        x, remembered, before = latents, [], iter(state or [])
        for layer in self.decoder:
            if isinstance(layer, MemBlock):
                remembered.append(x[-1:].clone())
                x = layer(x, next(before, None))
            else:
                x = layer(x)
        return (x[3:] if state is None else x), remembered

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: list[Tensor] | None) -> tuple[np.ndarray, list[Tensor]]:
        """Latents [1, F, C, h, w] -> uint8 video [T, H, W, 3] and the state for the next call."""
        weight = self.decoder[1].weight
        pixels, state = self.decode(latents[0].to(weight.device, weight.dtype), state)
        return to_frames(pixels, 0), state


def from_weights(weights: Mapping[str, Tensor], channels: int = 16, widths: Sequence[int] = WIDTHS) -> SmallDecoder:
    """A decoder from published weights (`decoder.1.weight`, ...); the encoder's are left out.

    Some published files hold more frames per `TGrow` than are used; the last ones count.
    Raises ValueError that names what is missing, left over or misshapen.
    """
    with torch.device("meta"):
        model = SmallDecoder(channels, widths)
    mine = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    for name, layer in model.named_modules():
        if isinstance(layer, TGrow) and (key := f"{name}.conv.weight") in mine:
            mine[key] = mine[key][-len(layer.conv.weight) :]
    load_strictly(model, mine)
    return model.eval().requires_grad_(False)


def load(path: str | Path, device: str = "cpu") -> SmallDecoder:
    """The small decoder of a .safetensors or .pth file, bfloat16 on CUDA and float32 on a CPU. Raises ValueError for another file."""
    model = from_weights(state_dict(read(path)))
    return model.to(
        device, torch.bfloat16 if str(device).startswith("cuda") else torch.float32, memory_format=torch.channels_last
    )
