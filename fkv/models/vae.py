"""Wan's VAE, of 2.1 or 2.2, as a streaming decoder: diffusers' AutoencoderKLWan with its cache kept between chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from torch import Tensor

from .frames import to_frames
from .parts import loading
from .release import Base


class StreamingVae:
    """Decodes latents chunk by chunk, with the result of decoding the whole clip at once.

    The state is the last input of each causal convolution. It is large (1.9 GB at 480p in bfloat16) and so is updated
    in place: the list that a call takes is the list that it returns. The first latent frame of a stream gives one video
    frame, every other four.

    Args:
        vae: The VAE; it is set to evaluation in place and its weights are shared.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.convolutions = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        self.mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self.std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    def channels_last(self) -> None:
        """Store the weights of 3-D convolutions channels last.

        In bfloat16 some versions of cuDNN take no other order, and PyTorch's fallback (2.9) needs tens of gigabytes at
        1080p.
        """
        for parameter in self.vae.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)

    def decode(self, latents: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """Decode the next latent frames of a stream.

        Args:
            latents: [1, F, Z, h, w].
            state: As the call before returned it; None starts a stream. It is updated in place.

        Returns:
            Video from -1 to 1, [1, 3, T, H, W], and the state for the next call.
        """
        weight = self.vae.post_quant_conv.weight
        z = latents.transpose(1, 2).to(weight.device, torch.float32)
        z = (z * self.std.to(z.device) + self.mean.to(z.device)).to(weight.dtype)
        z = self.vae.post_quant_conv(z)
        opening = state is None
        state = state or [None] * self.convolutions
        frames = [
            self.vae.decoder(z[:, :, i : i + 1], feat_cache=state, feat_idx=[0], first_chunk=opening and i == 0)
            for i in range(z.shape[2])
        ]
        video = torch.cat(frames, 2)
        if self.vae.config.patch_size is not None:  # Wan 2.2's
            video = unpatchify(video, self.vae.config.patch_size)
        return video.clamp_(-1, 1), state

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: list[Any] | None) -> tuple[np.ndarray, list[Any]]:
        """Decode the next latent frames of a stream to uint8 video, [T, H, W, 3]; see `decode`."""
        pixels, state = self.decode(latents, state)
        return to_frames(pixels[0].transpose(0, 1)), state

    def copy(self, state: list[Any] | None) -> list[Any]:
        """Refuse: the state is too large to have twice. Raises ValueError."""
        raise ValueError(
            "the VAE's state is too large to copy for a second stream; use --decoder small, or branch without decoding"
        )


def random_vae(base: Base) -> AutoencoderKLWan:
    """Make the VAE of a base with random weights and latents that are not normalised."""
    scale = {"latents_mean": [0.0] * base.channels, "latents_std": [1.0] * base.channels}
    return AutoencoderKLWan(**dict(base.codec.vae_arguments), **scale)


def without_encoder(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Drop the encoder, which no stream needs, and its memory."""
    vae.encoder = None
    return vae


def load(folder: str | Path, device: str = "cpu") -> StreamingVae:
    """Load the VAE in a diffusers folder, in bfloat16 on CUDA and float32 on a CPU.

    Args:
        folder: With config.json and the weights.
        device: Where to run it.

    Raises:
        ValueError: The folder has no VAE, or a damaged one.
    """
    dtype = torch.bfloat16 if str(device).startswith("cuda") else torch.float32
    with loading("the VAE", folder, "delete it and download it again"):
        vae = AutoencoderKLWan.from_pretrained(folder, local_files_only=True, torch_dtype=dtype)
    decoder = StreamingVae(without_encoder(vae).to(device))
    if torch.device(device).type == "cuda":
        decoder.channels_last()
    return decoder
