"""What a stream needs of a model: transformer, prompt encoder, decoder, schedule, sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fkv.cache import Geometry
from fkv.roles import HeadRoles
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

from .precision import precision_of


class Decoder(Protocol):
    """Latents to video, chunk by chunk; all state between chunks is in what `__call__` returns and takes."""

    def __call__(self, latents: Tensor, state: Any) -> tuple[np.ndarray, Any]:
        """Latents [1, F, C, h, w] and the state of the call before (None at first) -> uint8 [T, H, W, 3], state."""


@dataclass(frozen=True)
class VideoModel:
    """A loaded model.

    name : as in the registry. encode : prompt -> embeddings [1, words, dim]. decoder : None leaves latents undecoded.
    latent : channels, height, width. fps : the rate at which its video is meant to play.
    hints : prompt -> what the user should know about it (words that the model never saw), each one sentence.
    policies : what is worth seeing side by side, as policy texts: a lean cache, then what it is compared with.
    weights : the files that the transformer was loaded from.
    """

    name: str
    transformer: CausalTransformer
    encode: Callable[[str], Tensor]
    schedule: Schedule
    latent: tuple[int, int, int]
    decoder: Decoder | None = None
    roles: HeadRoles | None = None
    frames_per_chunk: int = 3
    video_frames_per_latent: int = 4
    fps: int = 16
    hints: Callable[[str], list[str]] = field(default=lambda prompt: [])
    examples: tuple[str, ...] = ()
    policies: tuple[str, str] = ("forcing-kv", "full")
    weights: tuple[Path, ...] = ()

    @property
    def chunk_seconds(self) -> float:
        """Seconds of video in one chunk."""
        return self.frames_per_chunk * self.video_frames_per_latent / self.fps

    @property
    def device(self) -> torch.device:
        """The device on which the transformer runs."""
        return self.transformer.device

    @property
    def precision(self) -> str:
        """The transformer's precision by name, as in `fkv.models.precision.COMPUTE`."""
        return precision_of(self.transformer.model)

    @property
    def profile_threshold(self) -> float | None:
        """The threshold that made static heads of the profile's scores; None without a profile."""
        if self.roles is None or self.roles.scores is None:
            return None
        return self.roles.provenance.get("threshold")

    @property
    def geometry(self) -> Geometry:
        """Cache geometry of one stream."""
        return self.transformer.geometry(*self.latent[1:], self.frames_per_chunk)
