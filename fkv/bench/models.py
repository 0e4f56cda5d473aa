"""Models to measure: the shipped one, and models of Wan's sizes with random weights, which take as long as trained ones."""

from __future__ import annotations

import dataclasses

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

from fkv import roles
from fkv.models import registry
from fkv.models.base import Decoder, VideoModel
from fkv.models.convert import empty_model, load_strictly
from fkv.models.memory import free_memory, parameters
from fkv.models.precision import COMPUTE, check_precision, native_precision, stored_as, use_fp8
from fkv.models.release import BASES, RESOLUTIONS, ROLES, Base
from fkv.models.taehv import SmallDecoder
from fkv.models.vae import StreamingVae, without_encoder
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

RELEASED = {"wan-1.3b": "self_forcing", "wan-14b": "krea_realtime_14b"}
"""Head roles that fit a base."""
DECODERS = ("own", "vae", "small", "none")


def latent_size(resolution: str) -> tuple[int, int]:
    """Latent height and width of a named resolution or of `HEIGHTxWIDTH` in pixels. Raises ValueError for anything else."""
    if resolution in RESOLUTIONS:
        return RESOLUTIONS[resolution]
    sides = [int(side) if side.isdecimal() else 0 for side in resolution.split("x")]
    if len(sides) != 2 or not all(sides) or any(side % 16 for side in sides):
        raise ValueError(
            f"{resolution!r} is no resolution; name {', '.join(RESOLUTIONS)} or write HEIGHTxWIDTH in multiples of 16 pixels"
        )
    return sides[0] // 8, sides[1] // 8


class TooLarge(ValueError):
    """Something does not fit in the memory that is free."""


def require_memory(wanted: int, device: torch.device, what: str) -> None:
    """Raises TooLarge when `what` needs more bytes than the device has free."""
    free = free_memory(str(device))["device"]
    if wanted > free:
        raise TooLarge(
            f"{what} needs {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose fewer --layers or a lower --resolution"
        )


def _transformer(base: Base, precision: str, device: torch.device) -> WanTransformer3DModel:
    model = empty_model(base.original)
    require_memory(
        parameters(base) * COMPUTE[precision].itemsize * 3 // 2, device, "the model with its fused projections"
    )
    generator = torch.Generator(device).manual_seed(0)

    def random(name: str, meta: Tensor) -> Tensor:
        stored = stored_as(model, name, precision)
        return (
            torch.empty(meta.shape, device=device, dtype=COMPUTE[precision])
            .normal_(0, 0.02, generator=generator)
            .to(stored)
        )

    load_strictly(model, dict(model.named_parameters()), random)
    use_fp8(model, precision)
    return model


def _decoder(name: str, device: torch.device) -> Decoder | None:
    if name == "none":
        return None
    dtype, decoder = (
        COMPUTE[native_precision(device)],
        SmallDecoder() if name == "small" else StreamingVae(without_encoder(AutoencoderKLWan())),
    )
    module: nn.Module = decoder if name == "small" else decoder.vae
    for parameter in module.eval().parameters():
        parameter.requires_grad_(False).data = parameter.data.to(device, dtype)
    if name == "vae" and device.type == "cuda":
        decoder.channels_last()
    return decoder


def build(
    name: str,
    device: torch.device,
    precision: str | None = None,
    resolution: str | None = None,
    layers: int | None = None,
    decoder: str | None = None,
) -> VideoModel:
    """A model by name: `tiny` as it ships; `wan-1.3b` and `wan-14b` with random weights, text embeddings and decoder.

    resolution, layers and the decoders `vae` and `small` are for the random ones, which by default are whole, at 480p, in
    `native_precision`, and without decoder.
    Raises ValueError for an unknown name, for options that do not apply, and when memory does not suffice.
    """
    if name not in BASES:
        if registry.entry(name).release:
            raise ValueError(
                f"{name} is not measured itself; {', '.join(BASES)} take as long as the models of their size"
            )
        if resolution or layers or decoder not in (None, "own", "none"):
            others = "--resolution, --layers and the decoders vae and small"
            raise ValueError(f"{name} is measured as it ships; {others} are for {', '.join(BASES)}")
        return dataclasses.replace(
            registry.load(name, str(device), precision=precision), **({"decoder": None} if decoder == "none" else {})
        )
    if decoder == "own":
        raise ValueError(f"{name} with random weights has no decoder of its own; choose vae, small or none")
    precision = precision or native_precision(device)
    check_precision(precision, str(device))
    base, (height, width) = BASES[name], latent_size(resolution or "480p")
    if layers is not None and not 2 <= layers <= base.layers:
        raise ValueError(f"--layers must be from 2 to the {base.layers} of {name}, not {layers}")
    base = dataclasses.replace(base, layers=layers or base.layers)
    released = roles.load(ROLES / f"{RELEASED[name]}.json")
    text = torch.randn(1, base.max_sequence_length, base.text_dim, generator=torch.Generator().manual_seed(1))
    return VideoModel(
        name=name,
        transformer=CausalTransformer(_transformer(base, precision, device)),
        encode=lambda prompt: text,
        schedule=Schedule.warped(),
        latent=(base.channels, height, width),
        decoder=_decoder(decoder or "none", device),
        roles=roles.HeadRoles(released.num_heads, released.static[: base.layers]),
    )
