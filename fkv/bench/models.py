"""Models to measure: the shipped one, and models of Wan's sizes with random weights, as fast as trained ones."""

from __future__ import annotations

import dataclasses

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from fkv import roles
from fkv.models import registry
from fkv.models.base import Decoder, VideoModel
from fkv.models.convert import empty_model, load_strictly
from fkv.models.memory import free_memory, parameters
from fkv.models.precision import COMPUTE, check_precision, native_precision, stored_as, use_fp8
from fkv.models.release import BASES, PATCH, RESOLUTIONS, ROLES, Base
from fkv.models.taehv import SmallDecoder
from fkv.models.vae import StreamingVae, random_vae, without_encoder
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

RELEASED = {"wan-1.3b": "self_forcing", "wan-14b": "krea_realtime_14b"}  # head roles that fit a base


def latent_size(resolution: str, base: Base = BASES["wan-1.3b"]) -> tuple[int, int]:
    """Return the latent height and width of a resolution.

    Args:
        resolution: A key of `RESOLUTIONS`, or `HEIGHTxWIDTH` in pixels.
        base: Whose latents.

    Raises:
        ValueError: Neither.
    """
    if resolution in RESOLUTIONS:
        return base.latent_size(resolution)
    step = base.codec.spatial * PATCH
    sides = [int(side) if side.isdecimal() else 0 for side in resolution.split("x")]
    if len(sides) != 2 or not all(sides) or any(side % step for side in sides):
        raise ValueError(
            f"{resolution!r} is no resolution; "
            f"name {', '.join(RESOLUTIONS)} or write HEIGHTxWIDTH in multiples of {step} pixels"
        )
    return sides[0] // base.codec.spatial, sides[1] // base.codec.spatial


class TooLarge(ValueError):
    """Something does not fit in free memory."""


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Check that a device has memory free.

    Args:
        needed: Bytes.
        device: The device.
        what: Needs it, in words.

    Raises:
        TooLarge: It has not.
    """
    free = free_memory(str(device))["device"]
    if needed > free:
        raise TooLarge(
            f"{what} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            f"choose fewer --layers or a lower --resolution"
        )


def _transformer(base: Base, precision: str, device: torch.device) -> WanTransformer3DModel:
    """Make a transformer with random weights."""
    model = empty_model(base.original)
    size = parameters(base) * COMPUTE[precision].itemsize * 3 // 2
    require_memory(size, device, "the model with its fused projections")
    generator = torch.Generator(device).manual_seed(0)

    def random(name: str, meta: Tensor) -> Tensor:
        weight = torch.empty(meta.shape, device=device, dtype=COMPUTE[precision])
        return weight.normal_(0, 0.02, generator=generator).to(stored_as(model, name, precision))

    load_strictly(model, dict(model.named_parameters()), random)
    use_fp8(model, precision)
    return model


def _decoder(name: str, base: Base, device: torch.device) -> Decoder | None:
    """Make a decoder with random weights."""
    if name == "none":
        return None
    dtype = COMPUTE[native_precision(device)]
    if name in ("small", "light"):
        small = SmallDecoder(base.channels, patch=base.codec.patch)
        return small.eval().requires_grad_(False).to(device, dtype)
    vae = StreamingVae(without_encoder(random_vae(base)).to(device, dtype))
    if device.type == "cuda":
        vae.channels_last()
    return vae


def build(
    name: str,
    device: torch.device,
    precision: str | None = None,
    resolution: str | None = None,
    layers: int | None = None,
    decoder: str | None = None,
) -> VideoModel:
    """Make a model to measure: `tiny` as it ships, or one of a base in `BASES` with random weights and text embeddings.

    Args:
        name: Of the model.
        device: Where it runs.
        precision: By default `native_precision`.
        resolution: For random weights, as in `latent_size`; by default 480p.
        layers: For random weights, how many; by default all.
        decoder: `own` (the default) or `none` for tiny; one of `CHOICES`, `none` by default, for random weights.

    Raises:
        ValueError: An unknown name, options that do not apply, or too little memory.
    """
    if name not in BASES:
        if registry.entry(name).release:
            raise ValueError(
                f"{name} is not measured itself; {', '.join(BASES)} take as long as the models of their size"
            )
        if resolution or layers or decoder not in (None, "own", "none"):
            others = "--resolution, --layers and the decoders vae, small and light"
            raise ValueError(f"{name} is measured as it ships; {others} are for {', '.join(BASES)}")
        model = registry.load(name, str(device), precision=precision)
        return dataclasses.replace(model, decoder=None) if decoder == "none" else model
    if decoder == "own":
        raise ValueError(f"{name} with random weights has no decoder of its own; choose vae, small, light or none")
    precision = precision or native_precision(device)
    check_precision(precision, str(device))
    base = BASES[name]
    height, width = latent_size(resolution or "480p", base)
    if layers is not None and not 2 <= layers <= base.layers:
        raise ValueError(f"--layers must be from 2 to the {base.layers} of {name}, not {layers}")
    base = dataclasses.replace(base, layers=layers or base.layers)
    released = roles.load(ROLES / f"{RELEASED[name]}.json") if name in RELEASED else None
    text = torch.randn(1, base.max_sequence_length, base.text_dim, generator=torch.Generator().manual_seed(1))
    return VideoModel(
        name=name,
        transformer=CausalTransformer(_transformer(base, precision, device)),
        encode=lambda prompt: text,
        schedule=Schedule.warped(),
        latent=(base.channels, height, width),
        decoder=_decoder(decoder or "none", base, device),
        roles=released and roles.HeadRoles(released.num_heads, released.static[: base.layers]),
    )
