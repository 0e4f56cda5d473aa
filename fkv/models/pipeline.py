"""Models that are loaded already: diffusers' `WanPipeline` or `WanTransformer3DModel` as a `VideoModel`."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from fkv.roles import HeadRoles
from fkv.roles import load as load_roles
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

from . import registry
from .base import VideoModel
from .release import BASES, RESOLUTIONS, Base
from .text import TextEncoder
from .vae import StreamingVae


def load(source: str | Any, **options: Any) -> VideoModel:
    """Load a model by name, or take one that diffusers has loaded.

        model = fkv.load("tiny")
        model = fkv.load(pipeline, roles="roles.json", resolution=(480, 832))

    Args:
        source: A name that `fkv models` lists; or a `WanPipeline`, or a bare `WanTransformer3DModel`.
        **options: For a name, `device` (default: the GPU where there is one) and the fields of
            `fkv.models.release.Setup`. For a pipeline or transformer, the arguments of `from_diffusers`.

    Raises:
        ValueError: The name is unknown, an option is out of range, or the model cannot be streamed.
    """
    if isinstance(source, str):
        device = options.pop("device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
        return registry.load(source, str(device), **options)
    return from_diffusers(source, **options)


def from_diffusers(
    source: Any,
    resolution: str | tuple[int, int] = "480p",
    schedule: Schedule | None = None,
    frames_per_chunk: int = 3,
    roles: HeadRoles | str | Path | None = None,
    name: str = "wan",
) -> VideoModel:
    """Make a `VideoModel` from a text-to-video Wan model that diffusers has loaded.

    The modules keep their device and dtype; they are put in evaluation mode, with gradients off. The weights should be
    those of a model trained to generate video chunk by chunk in a few steps (Self Forcing and its successors): any Wan
    transformer runs, but Wan 2.1's own weights, trained for whole clips in 50 steps, give poor video.

    Args:
        source: A `WanPipeline`, or a bare `WanTransformer3DModel`. Without a text encoder and tokenizer, streams take
            embeddings, [1, tokens, text_dim], instead of a prompt: `Stream(model, policy, text=embeddings)`.
            Without a VAE, `Chunk.video` is None; `Chunk.latents` holds the result.
        resolution: "480p", "720p", "1080p", or height and width of the video in pixels.
        schedule: Noise levels of the denoising steps. Default: the four of Self Forcing, `Schedule.warped()`.
        frames_per_chunk: Latent frames per chunk (Self Forcing's `num_frame_per_block`).
        roles: Head roles, or the path of a roles file, for policies that treat static and dynamic heads differently.
        name: The model's name in reports.

    Raises:
        ValueError: The source cannot be streamed, or an option is out of range.
    """
    transformer = source if isinstance(source, WanTransformer3DModel) else getattr(source, "transformer", None)
    pipeline = None if transformer is source else source
    if not isinstance(transformer, WanTransformer3DModel):
        raise ValueError(
            "expected the name of a model, a WanTransformer3DModel or a pipeline with one, "
            f"not {type(source).__name__}{' without a transformer' if hasattr(source, 'transformer') else ''}"
        )
    if getattr(pipeline, "transformer_2", None) is not None:
        raise ValueError("the pipeline has two transformers (Wan 2.2); only models with one can be streamed")
    _check_transformer(transformer)
    causal = CausalTransformer(transformer)
    base = _base(causal.channels)
    if not isinstance(frames_per_chunk, Integral) or frames_per_chunk < 1:
        raise ValueError(f"frames_per_chunk must be a whole number of at least 1, not {frames_per_chunk!r}")
    heads = roles_of(roles)
    if heads is not None:
        heads.check(causal.layers, causal.heads)
    return VideoModel(
        name=name,
        transformer=causal,
        encode=_encoder(pipeline, transformer),
        schedule=schedule or Schedule.warped(),
        latent=(causal.channels, *_latent_size(resolution, base, causal.patch)),
        decoder=_decoder(pipeline, causal.channels),
        roles=heads,
        frames_per_chunk=frames_per_chunk,
        fps=base.fps,
        policies=("forcing-kv" if heads else "sliding-window", "full"),
    )


def roles_of(source: HeadRoles | str | Path | None) -> HeadRoles | None:
    """Head roles as they are, or read from a file. Raises ValueError for anything else, and for a file of none."""
    if source is None or isinstance(source, HeadRoles):
        return source
    if not isinstance(source, (str, Path)):
        raise ValueError(f"roles must be HeadRoles or the path of a file of them, not a {type(source).__name__}")
    return load_roles(source)


def _check_transformer(transformer: WanTransformer3DModel) -> None:
    """Raise ValueError for weights that are offloaded, quantized or adapted, and for image-to-video models."""
    config = transformer.config
    if any(parameter.is_meta for parameter in transformer.parameters()) or hasattr(transformer, "_hf_hook"):
        raise ValueError(
            "the transformer is offloaded: its weights are on the device only while it runs; call remove_all_hooks() "
            "on the pipeline, then to(device)"
        )
    if getattr(transformer, "is_quantized", False):
        raise ValueError("the transformer is quantized; load it in bfloat16, or by name with precision='fp8'")
    if getattr(transformer, "_hf_peft_config_loaded", False):
        raise ValueError(
            "the transformer has adapters that are not merged into its weights; call fuse_lora() on the pipeline, "
            "then unload_lora_weights()"
        )
    if config.in_channels != config.out_channels:
        raise ValueError(
            f"the transformer takes {config.in_channels} input channels for latents of {config.out_channels}, "
            "as image-to-video models do; only text-to-video models can be streamed"
        )


def _base(channels: int) -> Base:
    """The base whose latents have these channels, Wan 2.1's where no base has."""
    return next((base for base in BASES.values() if base.channels == channels), BASES["wan-1.3b"])


def _latent_size(resolution: str | tuple[int, int], base: Base, patch: int) -> tuple[int, int]:
    """Latent height and width."""
    if isinstance(resolution, str) and resolution in RESOLUTIONS:
        return base.latent_size(resolution)
    sides = resolution if isinstance(resolution, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise ValueError(
            f"resolution must be {', '.join(RESOLUTIONS)} or height and width in pixels, not {resolution!r}"
        )
    height, width = sides
    spatial = base.codec.spatial
    step = spatial * patch
    if min(height, width) < step or height % step or width % step:
        raise ValueError(f"height and width must be multiples of {step} pixels, not {height} x {width}")
    return height // spatial, width // spatial


def _encoder(pipeline: Any, transformer: WanTransformer3DModel) -> Callable[[str], Tensor]:
    """The pipeline's text encoder where it has one, else a function that says what is missing."""
    encoder, tokenizer = (getattr(pipeline, part, None) for part in ("text_encoder", "tokenizer"))
    expected = transformer.config.text_dim
    if encoder is None or tokenizer is None:

        def refuse(prompt: str) -> Tensor:
            raise ValueError(
                "this model has no text encoder and tokenizer, so prompts cannot be encoded; load a pipeline that has "
                f"both, or give embeddings of shape [1, tokens, {expected}]: Stream(model, policy, text=embeddings)"
            )

        return refuse
    if encoder.config.d_model != expected:
        raise ValueError(
            f"the text encoder gives {encoder.config.d_model} values per token, the transformer takes {expected}"
        )
    device = str(encoder.device)
    return TextEncoder(tokenizer, encoder, Base.max_sequence_length, home=device, device=device)


def _decoder(pipeline: Any, channels: int) -> StreamingVae | None:
    """The pipeline's VAE as a streaming decoder; None where it has none."""
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        return None
    if not isinstance(vae, AutoencoderKLWan):
        raise ValueError("the pipeline's VAE is not Wan's; set pipeline.vae = None to stream latents without it")
    if vae.config.z_dim != channels:
        raise ValueError(f"the VAE decodes {vae.config.z_dim} channels, the transformer generates {channels}")
    return StreamingVae(vae)
