"""Training clips of the toy world, rendered as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkv.world.captions import Scene
from fkv.world.panorama import WALL
from fkv.world.render import render
from fkv.world.tensors import to_pixels

from .history import History


@dataclass
class Clips:
    """A training batch of clips that share their chunk indices.

    Attributes:
        latents: Encoded clips, [B, F, Z, h, w].
        weight: Loss weight, higher on the things, [B, F, 1, h, w].
        prompts: One per clip and chunk.
        corners: First pixel of the noise of the first K chunks, [B, K, Z]; it sets what the captions leave open. K is 1
            in today's world, where only the opening decides anything.
        chunks: Chunk indices of the clip.
        judged: Which frames count in the loss, bool [F, 1, 1, 1]; a chunk whose predecessor is missing does not.
        history: What each chunk sees of earlier ones; None draws anew in every step.
    """

    latents: Tensor
    weight: Tensor
    prompts: list[list[str]]
    corners: Tensor
    chunks: list[int]
    judged: Tensor
    history: History | None = None

    def noise(self) -> Tensor:
        """Draw the noise of a stream that shows these clips, [B, F, Z, h, w]."""
        noise = torch.randn_like(self.latents)
        chunk_frames = self.latents.shape[1] // len(self.chunks)
        noise[:, : chunk_frames * self.corners.shape[1] : chunk_frames, :, 0, 0] = self.corners
        return noise


def object_mask(scene: Scene, frames: Sequence[int], genes: Sequence[float], video: Tensor) -> Tensor:
    """The pixels of the moving things, [T, 1, H, W] in {0, 1}: those that change when the things are left out."""
    empty = to_pixels(render(Scene(scene.place, scene.time, ()), frames, genes))
    return ((video - empty).abs().amax(1, keepdim=True) > 0.05).float()


def memory_mask(marked: np.ndarray) -> Tensor:
    """The pixels of the memory world that count more, from labels [T, H, W]: float [T, 1, H, W] in {0, 1}.

    These are things, signs, lamps, windows and passers-by, but neither walls, huts nor trees.
    """
    return torch.from_numpy((marked > 0) & (marked < WALL)).float()[:, None]
