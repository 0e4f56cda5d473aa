"""The small decoders, as streams: TAEHV (Ollin Boer Bohan, github.com/madebyollin/taehv), and LightTAE of its form.

About ten million parameters instead of the 127 of Wan 2.1's VAE: plain convolutions in space, and in time one
remembered frame per block. Weights are published as `taew2_1` and `lighttaew2_1` for Wan 2.1, and as `taew2_2` and
`lighttaew2_2` for Wan 2.2. Module names and layer numbers are upstream's, so published weights load.

LightTAE (huggingface.co/lightx2v/Autoencoders) takes latents as the VAE does, with its mean and deviation; TAEHV takes
them as the transformer generates them. So does LightX2V (`need_scaled` in its vae_tiny.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from .checkpoints import read, state_dict
from .convert import load_strictly
from .frames import to_frames
from .parts import loading

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
    """Decodes latents to video: 4 frames and 8 x 8 pixels, times `patch` x `patch`, per latent position.

    Like the VAE's, a stream begins with a single frame.

    Args:
        channels: Of the latents.
        widths: Channels of the stages, see `WIDTHS`.
        patch: Rows and columns of pixels that the last convolution computes as channels.

    Attributes:
        mean: Added to the latents, [C, 1, 1]; None where the decoder takes them as they are generated.
        std: The latents are multiplied by it first, [C, 1, 1].
    """

    mean: Tensor | None = None
    std: Tensor | None = None

    def __init__(self, channels: int = 16, widths: Sequence[int] = WIDTHS, patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        layers: list[nn.Module] = [Clamp(), nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU()]
        for wide, narrow, stride in zip(widths[:-1], widths[1:], FRAMES_PER_STAGE, strict=True):
            layers += [MemBlock(wide), MemBlock(wide), MemBlock(wide), nn.Upsample(scale_factor=2), TGrow(wide, stride)]
            layers += [nn.Conv2d(wide, narrow, 3, padding=1, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(widths[-1], 3 * patch**2, 3, padding=1))

    def decode(self, latents: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Decode the next latent frames of a stream.

        Args:
            latents: Normalised as the transformer generates them, [F, C, h, w].
            state: The last input frame of each `MemBlock`, as the call before returned it; None starts a stream.

        Returns:
            Video from about 0 to 1, [T, 3, 8 patch h, 8 patch w], and the state for the next call.
        """
        x = latents
        if self.mean is not None and self.std is not None:
            x = x * self.std.to(x) + self.mean.to(x)
        past = iter(state or [])
        new_state = []
        for layer in self.decoder:
            if isinstance(layer, MemBlock):
                new_state.append(x[-1:].clone())
                x = layer(x, next(past, None))
            else:
                x = layer(x)
        x = pixel_shuffle(x, self.patch)
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


def from_weights(
    weights: Mapping[str, Tensor], channels: int = 16, widths: Sequence[int] = WIDTHS, patch: int = 1
) -> SmallDecoder:
    """Make a decoder from published weights.

    Some published files have more frames per `TGrow` than are used; the last ones count, as upstream.

    Args:
        weights: By published name (`decoder.1.weight`, ...); the encoder's are left out.
        channels: As in `SmallDecoder`.
        widths: As in `SmallDecoder`.
        patch: As in `SmallDecoder`.

    Raises:
        ValueError: Names what is missing, left over or misshapen.
    """
    with torch.device("meta"):
        model = SmallDecoder(channels, widths, patch)
    decoder_weights = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    for name, layer in model.named_modules():
        if isinstance(layer, TGrow) and (key := f"{name}.conv.weight") in decoder_weights:
            decoder_weights[key] = decoder_weights[key][-len(layer.conv.weight) :]
    load_strictly(model, decoder_weights)
    return model.eval().requires_grad_(False)


def load(
    path: str | Path, device: str = "cpu", channels: int = 16, patch: int = 1, vae_config: str | Path | None = None
) -> SmallDecoder:
    """Load a small decoder, in bfloat16 on CUDA and float32 on a CPU.

    Args:
        path: A .safetensors or .pth file.
        device: Where to run it.
        channels: As in `SmallDecoder`.
        patch: As in `SmallDecoder`.
        vae_config: The config.json of the VAE whose mean and deviation it takes; None for TAEHV, which takes none.

    Raises:
        ValueError: The file is missing, damaged, or of another model.
    """
    with loading("the small decoder", path, "choose another --decoder"):
        model = from_weights(state_dict(read(path)), channels, patch=patch)
    dtype = torch.bfloat16 if str(device).startswith("cuda") else torch.float32
    model.to(device, dtype)
    if vae_config is not None:
        with loading("the VAE's configuration", vae_config, "delete it and download it again"):
            config = json.loads(Path(vae_config).read_text(encoding="utf-8"))
            model.mean, model.std = (torch.tensor(config[f"latents_{name}"])[:, None, None] for name in ("mean", "std"))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in PyTorch's annotations
