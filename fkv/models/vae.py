"""Wan's VAE as a streaming decoder: diffusers' AutoencoderKLWan with its feature cache kept from chunk to chunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor

from .frames import to_frames


class StreamingVae:
    """Decodes latents chunk by chunk, with the result of decoding the whole clip at once.

    The state is what each causal convolution saw last, 1.9 GB at 480p in bfloat16; so it is used up: the list given is the
    list returned. The first latent frame of a stream gives one video frame, every other four.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.convolutions = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        shape = (1, -1, 1, 1, 1)
        self.mean, self.std = (
            torch.tensor(values).view(shape) for values in (vae.config.latents_mean, vae.config.latents_std)
        )

    def channels_last(self) -> None:
        """Store the weights of 3-D convolutions channels last: in bfloat16 some versions of cuDNN take no others, and what PyTorch does
        instead needs tens of gigabytes at 1080p (PyTorch 2.9)."""
        for parameter in self.vae.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)

    def decode(self, latents: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """Latents [1, F, Z, h, w] -> video [1, 3, T, H, W] in [-1, 1] and the state for the next call (None starts a stream)."""
        weight = self.vae.post_quant_conv.weight
        z = latents.transpose(1, 2).to(weight.device, torch.float32)
        z = self.vae.post_quant_conv((z * self.std.to(z.device) + self.mean.to(z.device)).to(weight.dtype))
        first, state = state is None, state or [None] * self.convolutions
        frames = [
            self.vae.decoder(z[:, :, i : i + 1], feat_cache=state, feat_idx=[0], first_chunk=first and i == 0)
            for i in range(z.shape[2])
        ]
        return torch.cat(frames, 2).clamp_(-1, 1), state

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: list[Any] | None) -> tuple[np.ndarray, list[Any]]:
        """Latents [1, F, Z, h, w] -> uint8 video [T, H, W, 3] and the state for the next call."""
        pixels, state = self.decode(latents, state)
        return to_frames(pixels[0].transpose(0, 1), -1), state


def without_encoder(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Drop the encoder, which no stream needs, and its memory."""
    vae.encoder = None
    return vae


def load(folder: str | Path, device: str = "cpu") -> StreamingVae:
    """The VAE in a diffusers folder, bfloat16 on CUDA and float32 on a CPU. Raises ValueError for a folder that holds none."""
    dtype = torch.bfloat16 if str(device).startswith("cuda") else torch.float32
    try:
        vae = AutoencoderKLWan.from_pretrained(folder, local_files_only=True, torch_dtype=dtype)
    except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"the VAE in {folder} is missing or damaged ({reason}); delete it and download it again"
        ) from None
    decoder = StreamingVae(without_encoder(vae).to(device))
    if torch.device(device).type == "cuda":
        decoder.channels_last()
    return decoder
