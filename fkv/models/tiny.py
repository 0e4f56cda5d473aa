"""The shipped models: 9 M-parameter Wan transformers of the toy world, each with its text encoder and codec."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import torch
from torch import Tensor

from fkv import roles
from fkv.resources import asset
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer
from fkv.world import FPS, HEIGHT, PROMPT, WIDTH
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, TIMES, known_words, missing_parts, unknown_words, words
from fkv.world.shots import NEW_WORDS

from .base import VideoModel
from .codec import FRAMES_PER_LATENT, TinyCodec
from .frames import to_frames
from .parts import loading
from .precision import COMPUTE, check_precision, native_precision, use_fp8
from .wan_transformer import WanTransformer
from .words import WordEncoder

FOLDER = asset("tiny")
EXAMPLES = (
    PROMPT,
    "a cyan star drifting over the sea at night",
    "a purple heart circling in the city by day",
    "a yellow box swinging over the mountains at sunset",
    "a pink ball bouncing and a green triangle drifting in the desert by day",
)
MEMORY_EXAMPLES = (
    "something drifting over the sea by day, camera ahead",
    "a roaming thing over the hills at sunset, two lamps, camera ahead",
    "something hiding in the city at night, camera ahead",
    "a star swinging over the mountains by day, looking left",
    "nothing in the desert at sunset, looking right",
)
"""Prompts of the memory world; noise decides what they leave open."""


class StreamingCodec:
    """Decodes latents chunk by chunk; the state is the last latent frame.

    Args:
        codec: The codec; it is set to evaluation in place.
    """

    def __init__(self, codec: TinyCodec) -> None:
        self.codec = codec.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, latents: Tensor, state: Tensor | None) -> tuple[np.ndarray, Tensor]:
        """Decode latents [1, F, Z, h, w] to uint8 video, [T, H, W, 3]."""
        parameter = next(self.codec.parameters())
        pixels, state = self.codec.decode(latents.to(parameter.device, parameter.dtype), state)
        return to_frames(pixels[0]), state

    def copy(self, state: Tensor | None) -> Tensor | None:
        """Return the state itself, which no call changes."""
        return state


def hints(prompt: str, length: int = 24, vocabulary: Sequence[str] = known_words()) -> list[str]:
    """Return sentences about words that are cut or that the model never saw, or else about what is left open.

    Args:
        prompt: What the video shows.
        length: How many known words are read.
        vocabulary: The words that the model knows. Noise decides what a prompt of the memory world leaves open.
    """
    unknown = [*unknown_words(prompt, vocabulary), *dict.fromkeys(each for each in prompt if category(each) == "So")]
    known = [word for word in words(prompt) if word in vocabulary]
    more = [word for word in vocabulary if word in NEW_WORDS]
    cut = []
    if len(known) > length:
        cut = [f"The prompt has {len(known)} words that the tiny model knows; the first {length} are read."]
    if not unknown:
        missing = missing_parts(prompt) if prompt.strip() else []
        if more:
            missing = [part for part in missing if part in ("place", "time of day")]
        left = [f"Name a {', a '.join(missing)} too: the tiny model blurs what is left open."] if missing else []
        return cut + left
    named = ", ".join(f"“{word}”" for word in unknown[:5]) + (" and more" if len(unknown) > 5 else "")
    return [
        *cut,
        f"The tiny model does not know {named} and leaves such words out. It knows the colours {', '.join(COLOURS)}; "
        f"the shapes {', '.join(SHAPES)}; the motions {', '.join(MOTIONS)}; the places {', '.join(SCENES)}; "
        f"the times {', '.join(TIMES)}{'; and ' * bool(more)}{', '.join(more)}.",
    ]


def load(folder: str | Path = FOLDER, device: str = "cpu", precision: str | None = None) -> VideoModel:
    """Load the tiny model.

    Args:
        folder: With transformer/, text_encoder/, codec/, and roles.json where there is one.
        device: Where to run it.
        precision: Of transformer and codec, a key of `COMPUTE`; default `native_precision`.

    Raises:
        ValueError: A part is missing or damaged, or as in `check_precision`.
    """
    folder = Path(folder)
    precision = precision or native_precision(device)
    check_precision(precision, device)
    dtype = COMPUTE[precision]

    def part(cls: Any, name: str, dtype: torch.dtype = dtype) -> Any:
        with loading(f"the tiny model's {name}", folder / name, "restore the folder from the repository"):
            return cls.from_pretrained(folder / name, dtype)

    transformer = part(WanTransformer, "transformer")
    encoder = part(WordEncoder, "text_encoder", torch.float32)
    codec = part(TinyCodec, "codec")
    use_fp8(transformer, precision)
    encoder = encoder.to(device).eval().requires_grad_(False)
    role_file = folder / "roles.json"
    return VideoModel(
        name=folder.name,
        transformer=CausalTransformer(transformer.to(device)),
        encode=lambda prompt: encoder([prompt]),
        schedule=Schedule.even(4),
        latent=(codec.config.latent_channels, HEIGHT // 8, WIDTH // 8),
        decoder=StreamingCodec(codec.to(device, memory_format=torch.channels_last)),
        roles=roles.load(role_file) if role_file.exists() else None,
        video_frames_per_latent=FRAMES_PER_LATENT,
        fps=FPS,
        hints=partial(hints, length=encoder.config.length, vocabulary=tuple(encoder.config.vocabulary)),
        examples=MEMORY_EXAMPLES if NEW_WORDS[0] in encoder.config.vocabulary else EXAMPLES,
        weights=tuple(sorted((folder / "transformer").glob("*.safetensors"))),
    )
