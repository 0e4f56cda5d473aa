"""The small decoder: TAEHV (Ollin Boer Bohan, github.com/madebyollin/taehv) for Wan 2.1's latents, as a stream.

About ten million parameters instead of the VAE's 127: plain convolutions in space, and in time one remembered frame per
block. Its weights are published as `taew2_1`. Module names and layer numbers are upstream's, so published weights load.
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

WIDTHS = (256, 128, 64, 64)  # channels before, between and after the three stages
FRAMES_PER_STAGE = (1, 2, 2)  # frames that each stage makes of one
TRIMMED_FRAMES = 3  # a stream begins with one video frame, so these are dropped from its first four


class Clamp(nn.Module):
    """Squash to (-3, 3), almost the identity near 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class MemBlock(nn.Module):
    """A residual block that also sees its input of the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor, past: Tensor | None) -> Tensor:
        """Compute the block.

        Args:
            x: Frames, [T, C, H, W].
            past: The last frame of the call before, [1, C, H, W]; None, as zeros, where there was none.
        """
        past = torch.zeros_like(x[:1]) if past is None else past
        return torch.relu(self.conv(torch.cat([x, torch.cat([past, x[:-1]])], 1)) + x)


class TGrow(nn.Module):
    """Make `stride` frames of one."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (self.stride, -1)).flatten(0, 1)


class SmallDecoder(nn.Module):
    """Decodes latents to video: 4 frames and 8 x 8 pixels per latent position.

    Like the VAE's, a stream begins with a single frame.

    Args:
        channels: Of the latents.
        widths: Channels of the stages, see `WIDTHS`.
    """

    def __init__(self, channels: int = 16, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = [Clamp(), nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU()]
        for wide, narrow, stride in zip(widths[:-1], widths[1:], FRAMES_PER_STAGE, strict=True):
            layers += [MemBlock(wide), MemBlock(wide), MemBlock(wide), nn.Upsample(scale_factor=2), TGrow(wide, stride)]
            layers += [nn.Conv2d(wide, narrow, 3, padding=1, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(widths[-1], 3, 3, padding=1))

    def decode(self, latents: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Decode the next latent frames of a stream.

        Args:
            latents: Normalised as the transformer generates them, [F, C, h, w].
            state: The last input frame of each `MemBlock`, as the call before returned it; None starts a stream.

        Returns:
            Video from about 0 to 1, [T, 3, 8 h, 8 w], and the state for the next call.
        """
        x = latents
        past = iter(state or [])
        new_state = []
        for layer in self.decoder:
            if isinstance(layer, MemBlock):
                new_state.append(x[-1:].clone())
                x = layer(x, next(past, None))
            else:
                x = layer(x)
        return (x[TRIMMED_FRAMES:] if state is None else x), new_state

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: list[Tensor] | None) -> tuple[np.ndarray, list[Tensor]]:
        """Decode latents [1, F, C, h, w] to uint8 video, [T, H, W, 3]; see `decode`."""
        parameter = next(self.parameters())
        pixels, state = self.decode(latents[0].to(parameter.device, parameter.dtype), state)
        return to_frames(pixels, 0), state

    def copy(self, state: list[Tensor] | None) -> list[Tensor] | None:
        """Return the state itself, which no call changes."""
        return state


def from_weights(weights: Mapping[str, Tensor], channels: int = 16, widths: Sequence[int] = WIDTHS) -> SmallDecoder:
    """Make a decoder from published weights.

    Some published files have more frames per `TGrow` than are used; the last ones count, as upstream.

    Args:
        weights: By published name (`decoder.1.weight`, ...); the encoder's are left out.
        channels: As in `SmallDecoder`.
        widths: As in `SmallDecoder`.

    Raises:
        ValueError: Names what is missing, left over or misshapen.
    """
    with torch.device("meta"):
        model = SmallDecoder(channels, widths)
    decoder_weights = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    for name, layer in model.named_modules():
        if isinstance(layer, TGrow) and (key := f"{name}.conv.weight") in decoder_weights:
            decoder_weights[key] = decoder_weights[key][-len(layer.conv.weight) :]
    load_strictly(model, decoder_weights)
    return model.eval().requires_grad_(False)


def load(path: str | Path, device: str = "cpu") -> SmallDecoder:
    """Load the small decoder, in bfloat16 on CUDA and float32 on a CPU.

    Args:
        path: A .safetensors or .pth file.
        device: Where to run it.

    Raises:
        ValueError: The file is missing, damaged, or of another model.
    """
    model = from_weights(state_dict(read(path)))
    dtype = torch.bfloat16 if str(device).startswith("cuda") else torch.float32
    model.to(device, dtype)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in PyTorch's annotations
