"""What is known of a real model before it is loaded: its architecture, where its files are, how it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkv.resources import asset

if TYPE_CHECKING:  # both import torch, which this table does without
    from fkv.pages import Geometry
    from fkv.sampler import Schedule, Solver

# Latent height and width at 8 pixels each: video of 480 x 832, 720 x 1280, 1088 x 1920.
RESOLUTIONS = {"480p": (60, 104), "720p": (90, 160), "1080p": (136, 240)}
PATCH = 2  # latent rows and columns of a token

ROLES = asset("head_roles")


@dataclass(frozen=True)
class Source:
    """A file, or a folder with a trailing slash, in a Hub repository.

    Attributes:
        repo: The repository.
        file: The file or folder in it.
        gigabytes: Its size on disk.
        revision: A commit or branch.
    """

    repo: str
    file: str
    gigabytes: float
    revision: str = "main"


WAN_DIFFUSERS = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "0fad780a534b6463e45facd96134c9f345acfa5b"
TEXT_ENCODER = Source(WAN_DIFFUSERS[0], "text_encoder/", 22.7, WAN_DIFFUSERS[1])
TOKENIZER = Source(WAN_DIFFUSERS[0], "tokenizer/", 0.03, WAN_DIFFUSERS[1])
LIGHT_DECODERS = "lightx2v/Autoencoders"  # Apache-2.0
DECODERS_UNVERIFIED = (
    f"LightTAE (--decoder light), and the small decoder of wan2.2-5b, are files of {LIGHT_DECODERS} (Apache-2.0): no "
    "revision is pinned, and names and shapes are those of TAEHV's code; the files themselves were not opened."
)


@dataclass(frozen=True)
class Codec:
    """What decodes the latents of a base.

    Attributes:
        vae: Folder of a VAE in diffusers' layout.
        small: TAEHV.
        light: LightTAE.
        patch: Rows and columns of pixels that the last convolution of a decoder computes as channels.
        vae_arguments: Arguments of diffusers' `AutoencoderKLWan` that are not its defaults, as pairs.
    """

    vae: Source
    small: Source
    light: Source
    patch: int = 1
    vae_arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def spatial(self) -> int:
        """Rows and columns of pixels per latent row and column."""
        return 8 * self.patch

    @property
    def vae_config(self) -> Source:
        """The file that says how the latents are normalised."""
        return replace(self.vae, file=f"{self.vae.file}config.json", gigabytes=0.0)


WAN_2_1 = Codec(
    vae=Source(WAN_DIFFUSERS[0], "vae/", 0.5, WAN_DIFFUSERS[1]),
    small=Source("Kijai/WanVideo_comfy", "taew2_1.safetensors", 0.05, "29d93f7394d49ed7ef070709ff92a316c1a6aa41"),
    light=Source(LIGHT_DECODERS, "lighttaew2_1.safetensors", 0.05),
)
WAN_2_2 = Codec(
    vae=Source("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "vae/", 2.8, "b8fff7315c768468a5333511427288870b2e9635"),
    small=Source(LIGHT_DECODERS, "taew2_2.safetensors", 0.05),
    light=Source(LIGHT_DECODERS, "lighttaew2_2.safetensors", 0.05),
    patch=2,
    vae_arguments=(
        ("base_dim", 160),
        ("decoder_base_dim", 256),
        ("z_dim", 48),
        ("is_residual", True),
        ("in_channels", 12),
        ("out_channels", 12),
        ("patch_size", 2),
        ("scale_factor_spatial", 16),
    ),
)


@dataclass(frozen=True)
class Base:
    """An architecture that checkpoints share, in the terms of Wan's original text-to-video model.

    Attributes:
        codec: What decodes its latents.
        fps: Video frames per second at which it was trained.
    """

    name: str
    layers: int
    heads: int
    dim: int
    ffn_dim: int
    channels: int = 16
    text_dim: int = 4096
    max_sequence_length: int = 512
    freq_dim: int = 256
    codec: Codec = WAN_2_1
    fps: int = 16

    def latent_size(self, resolution: str) -> tuple[int, int]:
        """Height and width of a latent frame at a resolution of `RESOLUTIONS`, in whole tokens."""
        height, width = (side * 8 // self.codec.spatial // PATCH * PATCH for side in RESOLUTIONS[resolution])
        return height, width

    @property
    def original(self) -> dict[str, Any]:
        """Constructor arguments of the original model."""
        return {
            "patch_size": (1, PATCH, PATCH),
            "num_heads": self.heads,
            "dim": self.dim,
            "in_dim": self.channels,
            "out_dim": self.channels,
            "text_dim": self.text_dim,
            "freq_dim": self.freq_dim,
            "ffn_dim": self.ffn_dim,
            "num_layers": self.layers,
            "cross_attn_norm": True,
            "qk_norm": True,
            "eps": 1e-6,
        }

    def geometry(self, resolution: str, frames_per_chunk: int = 3) -> Geometry:
        """Cache geometry at a resolution of `RESOLUTIONS`."""
        from fkv.pages import Geometry

        rows, cols = (side // PATCH for side in self.latent_size(resolution))
        return Geometry(self.layers, self.heads, self.dim // self.heads, rows, cols, frames_per_chunk)


BASES = {
    base.name: base
    for base in (
        Base("wan-1.3b", layers=30, heads=12, dim=1536, ffn_dim=8960),
        Base("wan-14b", layers=40, heads=40, dim=5120, ffn_dim=13824),
        Base("wan2.2-5b", layers=30, heads=24, dim=3072, ffn_dim=14336, channels=48, codec=WAN_2_2, fps=24),
    )
}


@dataclass(frozen=True)
class Lora:
    """An adapter to merge into a checkpoint.

    Attributes:
        file: Where it is.
        strength: How much of it is merged.
        alpha: A layer's scale is alpha / rank; None takes what the file says, 1 where it says nothing. A layer's alpha
            in a tensor of the file comes before it.

    Raises:
        ValueError: The strength is no finite number.
    """

    file: Source | Path
    strength: float = 1.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ValueError(f"the strength of an adapter must be a finite number, not {self.strength}")

    @classmethod
    def parse(cls, text: str | Path, alpha: float | None = None) -> Lora:
        """Read FILE or FILE:STRENGTH."""
        name, colon, strength = str(text).rpartition(":")
        if colon and not Path(text).exists():
            try:
                return cls(Path(name), float(strength), alpha)
            except ValueError:
                if not set(strength) & set("/\\."):
                    raise ValueError(
                        f"--lora takes FILE or FILE:STRENGTH, as in style.safetensors:0.8; {strength!r} is not a number"
                    ) from None
        return cls(Path(text), 1.0, alpha)

    def __str__(self) -> str:
        name = self.file.name if isinstance(self.file, Path) else Path(self.file.file).name
        return f"{name}:{self.strength:g}"


@dataclass(frozen=True)
class Release:
    """A checkpoint and how it is meant to run.

    Attributes:
        name: As in `--model`.
        base: A key of `BASES`.
        weights: A Hub file, or a local file.
        licence: Of the weights.
        help: One line about the model.
        key: The checkpoint's state dict to take where it holds several (`generator`, `generator_ema`).
        loras: Adapters to merge into the weights.
        roles: A file under assets/head_roles; None where the heads have not been profiled.
        window: The cache it was released with, as policy text.
        hybrid: Its Forcing-KV parameters, as policy text.
        steps: Denoising steps, of a table of 1000.
        first_steps: Those of the first chunk, where they are others.
        shift: By which the table is warped.
        solver: `renoise`, or `unipc` on as many steps of Wan's table, warped likewise.
        timesteps: In place of steps and shift, the steps' timesteps as the transformer is given them.
        frames_per_chunk: Latent frames of a chunk.
        unverified: What could not be checked when the entry was written, or is not as released here; sentences.
    """

    name: str
    base: str
    weights: Source | Path
    licence: str
    help: str = ""
    key: str = "generator_ema"
    loras: tuple[Lora, ...] = ()
    roles: str | None = None
    window: str = "full"
    hybrid: str = "forcing-kv"
    steps: tuple[int, ...] = (1000, 750, 500, 250)
    first_steps: tuple[int, ...] = ()
    shift: float = 5.0
    solver: Solver = "renoise"
    timesteps: tuple[float, ...] = ()
    frames_per_chunk: int = 3
    unverified: str = ""

    @property
    def schedule(self) -> Schedule:
        """Noise levels of the denoising steps."""
        from fkv.sampler import Schedule

        if self.solver == "unipc":
            return Schedule.unipc(len(self.steps), self.shift)
        return Schedule.at(self.timesteps) if self.timesteps else Schedule.warped(self.steps, self.shift)

    @property
    def policies(self) -> tuple[str, str]:
        """What is worth seeing side by side, as policy texts: a lean cache, then what to compare it with."""
        if self.roles:
            return self.hybrid, self.window
        return ("sliding-window" if self.window == "full" else self.window), "full"

    @property
    def first_schedule(self) -> Schedule | None:
        """Noise levels of the first chunk, None where they are those of all."""
        from fkv.sampler import Schedule

        return Schedule.warped(self.first_steps, self.shift) if self.first_steps else None

    @property
    def roles_file(self) -> Path | None:
        """The file of its head roles."""
        return ROLES / f"{self.roles}.json" if self.roles else None

    @property
    def sources(self) -> list[Source]:
        """Its Hub files, without text encoder and decoder."""
        files = (self.weights, *(lora.file for lora in self.loras))
        return [file for file in files if isinstance(file, Source)]


CHOICES = {
    "resolution": tuple(RESOLUTIONS),
    "decoder": ("vae", "small", "light", "none"),
    "precision": ("bf16", "fp32", "fp8", "fp8-fast"),
    "text": ("device", "offload", "cpu"),
}


@dataclass(frozen=True)
class Setup:
    """How to run a release here.

    Attributes:
        resolution: A key of `RESOLUTIONS`.
        decoder: Wan's VAE, a small one (TAEHV), a light one (LightTAE), or none.
        precision: Of the transformer. fp8 stores the weights of feed-forward and cross-attention in fp8 and computes in
            bf16; fp8-fast multiplies by them in fp8.
        text: The text encoder stays on the device, moves there for every new prompt (offload), or runs on the CPU.

    Raises:
        ValueError: A value is not in `CHOICES`.
    """

    resolution: str = "480p"
    decoder: str = "vae"
    precision: str = "bf16"
    text: str = "offload"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {getattr(self, name)!r}"
                )
