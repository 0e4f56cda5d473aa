"""A real model, whole: transformer from its checkpoint, text encoder, decoder, schedule and head roles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from fkv import roles
from fkv.transformer.causal import CausalTransformer

from . import fit, taehv, text, vae
from .base import Decoder, VideoModel
from .checkpoints import load_transformer
from .download import fetch
from .precision import check_precision
from .release import BASES, TEXT_ENCODER, TOKENIZER, Base, Release, Setup, Source
from .weight_files import files_of

EXAMPLES = (
    "A close-up of a red fox in a snowy forest at dawn. It lifts its head, looks around and trots towards the camera, "
    "its breath visible in the cold air. Soft golden light falls through the trees; shallow depth of field, "
    "realistic fur and snow.",
    "An aerial shot along a rocky coast at sunset. Waves break on dark cliffs, seabirds circle in the wind, and the "
    "camera glides slowly forward over the water towards a white lighthouse whose lamp begins to turn.",
    "A street musician plays the cello in a rainy city at night. Neon signs are mirrored in the wet pavement, people "
    "with umbrellas pass behind him, and the camera circles him slowly; cinematic, film grain.",
)


def load(release: Release, device: str = "cpu", policy: str | None = None, **options: str) -> VideoModel:
    """Load a release onto a device: check memory, download what is not cached, then load.

    Args:
        release: What to load.
        device: Where to run it.
        policy: The cache that it will run under, as text, if that is known.
        **options: Fields of `Setup`.

    Raises:
        ValueError: It does not fit, cannot be downloaded, or a file is damaged or of another model.
    """
    setup, base = Setup(**options), BASES[release.base]
    check_precision(setup.precision, device)
    fit.check(release, setup, device, policy)
    weights = local(release.weights)
    loras = [dataclasses.replace(lora, file=local(lora.file)) for lora in release.loras]
    # first, so that weights that will not do are refused before more is downloaded
    transformer = load_transformer(weights, base, release.key, loras, precision=setup.precision, device=device)
    encoder, tokenizer = fetch(TEXT_ENCODER), fetch(TOKENIZER)
    decoder = _decoder(setup.decoder, base, device)
    home, runs = {"device": (device, device), "offload": ("cpu", device), "cpu": ("cpu", "cpu")}[setup.text]
    encode = text.load(encoder, tokenizer, base.max_sequence_length, home, runs)
    return VideoModel(
        name=release.name,
        transformer=CausalTransformer(transformer),
        encode=encode,
        schedule=release.schedule,
        first_schedule=release.first_schedule,
        latent=(base.channels, *base.latent_size(setup.resolution)),
        decoder=decoder,
        roles=roles.load(release.roles_file) if release.roles_file else None,
        frames_per_chunk=release.frames_per_chunk,
        fps=base.fps,
        hints=_hints(release, encode),
        examples=EXAMPLES,
        policies=release.policies,
        weights=tuple(file for path in (weights, *(local(lora.file) for lora in loras)) for file in files_of(path)),
        adapters=tuple(map(str, loras)),
        assumed=(f"Not verified of {release.name}: {release.unverified}",) if release.unverified else (),
    )


def local(file: Source | Path) -> Path:
    """Return the path of a file, downloaded first where it is on the Hub."""
    return fetch(file, "pass the file itself with --checkpoint or --lora") if isinstance(file, Source) else file


def _decoder(name: str, base: Base, device: str) -> Decoder | None:
    """Load a decoder of a base's latents by its name in `CHOICES`."""
    codec = base.codec
    if name == "vae":
        return vae.load(fetch(codec.vae), device)
    if name == "none":
        return None
    light = name == "light"
    file = fetch(codec.light if light else codec.small, "choose another --decoder")
    return taehv.load(file, device, base.channels, codec.patch, fetch(codec.vae_config) if light else None)


def _hints(release: Release, encoder: text.TextEncoder) -> Callable[[str], list[str]]:
    """Return a function from a prompt to what the user should know: that it is cut, that there are no head roles."""
    no_roles = (
        f"The heads of {release.name} have not been profiled: policies with head roles need a roles file; "
        f"make one with `fkv profile` and pass it with --roles."
    )
    return lambda prompt: encoder.cut(prompt) + ([] if release.roles else [no_roles])
