"""The shipped model: a 9 M-parameter Wan transformer of the toy world with its own words and codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from fkv import roles
from fkv.resources import asset
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer
from fkv.world import FPS, HEIGHT, WIDTH
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES, unknown_words

from .base import VideoModel
from .codec import FRAMES_PER_LATENT, TinyCodec
from .frames import to_frames
from .precision import COMPUTE, check_precision, native_precision, use_fp8
from .words import WordEncoder

FOLDER = asset("tiny")
PARTS = ("transformer", "text_encoder", "codec")
EXAMPLES = (
    "a red ball bouncing over the hills at sunset",
    "a cyan star drifting over the sea at night",
    "a purple heart circling in the city by day",
    "a yellow box swinging over the mountains at sunset",
    "a pink ball bouncing and a green triangle drifting in the desert by day",
)


class StreamingCodec:
    """Decodes latents [1, F, Z, h, w] to uint8 video; the state is the last latent frame."""

    def __init__(self, codec: TinyCodec) -> None:
        self.codec = codec.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: Tensor | None) -> tuple[np.ndarray, Tensor]:
        parameter = next(self.codec.parameters())
        pixels, state = self.codec.decode(latents.to(parameter.device, parameter.dtype), state)
        return to_frames(pixels[0], -1.0), state


def hints(prompt: str) -> list[str]:
    """Sentences about words of the prompt that the model never saw and what it knows instead."""
    unknown = unknown_words(prompt)
    if not unknown:
        return []
    named = ", ".join(f"“{word}”" for word in unknown[:5]) + (" and more" if len(unknown) > 5 else "")
    return [
        f"The tiny model does not know {named} and leaves such words out. It knows the colours {', '.join(COLOURS)}; "
        f"the shapes {', '.join(SHAPES)}; the motions {', '.join(MOTIONS)}; the places {', '.join(SCENES)}; the times {', '.join(TIMES)}."
    ]


def load(folder: str | Path = FOLDER, device: str = "cpu", precision: str | None = None) -> VideoModel:
    """Load the tiny model from a folder with transformer/, text_encoder/, codec/, and roles.json where there is one.

    precision: of the transformer and codec, one of `COMPUTE`; default `native_precision`.
    Raises ValueError like `check_precision`, and one that names a missing or damaged part.
    """
    folder, precision = Path(folder), precision or native_precision(device)
    check_precision(precision, device)
    dtype = COMPUTE[precision]
    parts: dict[str, Any] = {}
    for name, cls in zip(PARTS, (WanTransformer3DModel, WordEncoder, TinyCodec)):
        try:
            parts[name] = cls.from_pretrained(
                folder / name, local_files_only=True, torch_dtype=torch.float32 if name == "text_encoder" else dtype
            )
        except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"the tiny model's {name} in {folder / name} is missing or damaged ({reason}); restore the folder from the repository"
            ) from None
    use_fp8(parts["transformer"], precision)
    words = parts["text_encoder"].to(device).eval().requires_grad_(False)
    role_file = folder / "roles.json"
    return VideoModel(
        name="tiny",
        transformer=CausalTransformer(parts["transformer"].to(device)),
        encode=lambda prompt: words([prompt]),
        schedule=Schedule.even(4),
        latent=(parts["codec"].config.latent_channels, HEIGHT // 8, WIDTH // 8),
        decoder=StreamingCodec(parts["codec"].to(device, memory_format=torch.channels_last)),
        roles=roles.load(role_file) if role_file.exists() else None,
        video_frames_per_latent=FRAMES_PER_LATENT,
        fps=FPS,
        hints=hints,
        examples=EXAMPLES,
        weights=tuple(sorted((folder / "transformer").glob("*.safetensors"))),
    )
