"""What a stream needs of a model: transformer, prompt encoder, decoder, schedule, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fkv.pages import Geometry
from fkv.roles import HeadRoles
from fkv.sampler import Schedule
from fkv.transformer.causal import CausalTransformer

from .precision import precision_of


class Decoder(Protocol):
    """Decodes latents to video, chunk by chunk; all state between chunks is in what `__call__` takes and returns."""

    def __call__(self, latents: Tensor, state: Any) -> tuple[np.ndarray, Any]:
        """Decode the next latent frames of a stream.

        Args:
            latents: [1, F, C, h, w].
            state: As the call before returned it; None starts a stream.

        Returns:
            uint8 video, [T, H, W, 3], and the state for the next call.
        """

    def copy(self, state: Any) -> Any:
        """Copy a state, for a second stream that goes on from it.

        Args:
            state: As a call returned it; None before the first.

        Raises:
            ValueError: The state is too large to have twice.
        """


@dataclass(frozen=True)
class VideoModel:
    """A loaded model.

    Attributes:
        name: As in the registry.
        transformer: On its device, in its precision.
        encode: From a prompt, embeddings [1, text tokens, text_dim].
        schedule: Noise levels of the denoising steps.
        latent: Channels, height and width of a latent frame.
        decoder: None leaves latents undecoded.
        roles: Head roles; None where the heads have not been profiled.
        frames_per_chunk: Latent frames of a chunk (Self Forcing's `num_frame_per_block`).
        video_frames_per_latent: Video frames of a latent frame.
        fps: Video frames per second at which its video is meant to play.
        hints: From a prompt, what the user should know about it (words that the model never saw), a sentence each.
        examples: Prompts worth trying.
        policies: What is worth seeing side by side, as policy texts: a lean cache, then what to compare it with.
        first_schedule: Noise levels of the first chunk, where it takes other steps than the later ones.
        weights: The files that the transformer was loaded from.
        adapters: The adapters that were merged into it, as FILE:STRENGTH.
        assumed: What the user should know about how it is streamed, because nobody said how, it was not verified, or
            a guard is on.
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
    first_schedule: Schedule | None = None
    weights: tuple[Path, ...] = ()
    adapters: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.transformer.model.parameters())
        facts = [
            repr(self.name),
            f"{parameters / 1e6:,.1f} M parameters",
            f"{self.transformer.layers} layers x {self.transformer.heads} heads",
            f"{self.precision} on {self.device}",
            f"{len(self.schedule.sigmas)} steps",
            "no head roles" if self.roles is None else self.roles.summary,
        ]
        return f"VideoModel({', '.join(facts)})"

    def hints_of(self, prompts: Iterable[str]) -> list[str]:
        """Return what the user should know about several prompts, each sentence once."""
        return list(dict.fromkeys(hint for prompt in dict.fromkeys(prompts) for hint in self.hints(prompt)))

    def beside(self, name: str) -> Path | None:
        """The file of this name in the folder of the weights; None where there is none."""
        files = [weights.with_name(name) for weights in self.weights[:1]]
        return files[0] if files and files[0].exists() else None

    def with_steps(self, count: int | None) -> VideoModel:
        """Return the model with fewer denoising steps in every chunk, see `Schedule.with_steps`; itself for None."""
        if count is None:
            return self
        schedule = self.schedule.with_steps(count)
        return self if schedule == self.schedule else replace(self, schedule=schedule, first_schedule=None)

    @property
    def most_steps(self) -> int:
        """Denoising steps of the chunk that takes the most."""
        return max(len(each.sigmas) for each in (self.schedule, self.first_schedule) if each)

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
        _, height, width = self.latent
        return self.transformer.geometry(height, width, self.frames_per_chunk)
