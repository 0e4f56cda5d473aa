"""The tiny model's video codec: 4 video frames and 8 x 8 pixels per latent position, decoded as a stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .stored import Config, StoredModel

FRAMES_PER_LATENT = 4


class _Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class TinyCodec(StoredModel):
    """Convolutional video codec with a latent like Wan's: Z channels, 4x in time, 8x in space.

    Each latent frame is encoded from its four video frames and decoded together with the latent frame before it, so
    decoding carries exactly one latent frame of state.

    Args:
        latent_channels: Z.
        width: Channels of the finest convolutions.
        depth: Residual blocks per stage.
        latents_mean: By which latents are normalised, per channel.
        latents_std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        latent_channels: int = 16,
        width: int = 64,
        depth: int = 3,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.config = Config(
            latent_channels=latent_channels,
            width=width,
            depth=depth,
            latents_mean=latents_mean,
            latents_std=latents_std,
        )
        pixels = 3 * FRAMES_PER_LATENT
        wide = 2 * width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(pixels * 16, width, 3, padding=1),
            *[_Residual(width) for _ in range(depth - 1)],
            nn.PixelUnshuffle(2),
            nn.Conv2d(width * 4, wide, 1),
            *[_Residual(wide) for _ in range(depth - 1)],
            nn.SiLU(),
            nn.Conv2d(wide, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * latent_channels, wide, 3, padding=1),
            *[_Residual(wide) for _ in range(depth)],
            nn.Conv2d(wide, width * 4, 1),
            nn.PixelShuffle(2),
            *[_Residual(width) for _ in range(depth)],
            nn.SiLU(),
            nn.Conv2d(width, pixels * 16, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.tensor(latents_mean or [0.0] * latent_channels), persistent=False)
        self.register_buffer("std", torch.tensor(latents_std or [1.0] * latent_channels), persistent=False)

    def encode(self, video: Tensor) -> Tensor:
        """Encode video.

        Args:
            video: From -1 to 1, [B, 4 * F, 3, H, W].

        Returns:
            Normalised latents, [B, F, Z, H / 8, W / 8].
        """
        batch = video.shape[0]
        frames = video.shape[1] // FRAMES_PER_LATENT
        latents = self.encoder(video.reshape(batch * frames, -1, *video.shape[-2:]))
        latents = (latents - self.mean[:, None, None]) / self.std[:, None, None]
        return latents.unflatten(0, (batch, frames))

    def decode(self, latents: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode the next latent frames of a stream.

        Args:
            latents: Normalised, [B, F, Z, h, w].
            previous: The state as the call before returned it, the last latent frame, [B, 1, Z, h, w]; None starts a
                stream.

        Returns:
            Video from about -1 to 1, [B, 4 * F, 3, 8 h, 8 w], and the state for the next call.
        """
        previous = latents[:, :1] if previous is None else previous
        before = torch.cat([previous, latents[:, :-1]], 1)
        pair = torch.cat([latents, before], 2).flatten(0, 1)
        scale = self.std.repeat(2)[:, None, None]
        shift = self.mean.repeat(2)[:, None, None]
        pixels = self.decoder(pair * scale + shift)
        pixels = pixels.unflatten(1, (FRAMES_PER_LATENT, 3)).unflatten(0, latents.shape[:2])
        return pixels.flatten(1, 2), latents[:, -1:]
