"""Training clips of the toy world, rendered as they are needed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkv.world.captions import Scene
from fkv.world.render import GENES, render


@dataclass
class Clips:
    """A training batch: latents [B, F, Z, h, w], object weight [B, F, 1, h, w], prompts [B][chunk], first-chunk noise
    corner [B, Z], chunk indices of the clip, and which frames are judged [F, 1, 1, 1] (not a chunk whose past is out of sight)."""

    latents: Tensor
    weight: Tensor
    prompts: list[list[str]]
    corner: Tensor
    chunks: list[int]
    judged: Tensor

    def noise(self) -> Tensor:
        """What a stream of these clips begins with: the opening corner says what the captions leave open."""
        noise = torch.randn_like(self.latents)
        noise[:, 0, :, 0, 0] = self.corner
        return noise


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 frames [T, H, W, 3] -> float [T, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_frames(pixels: Tensor) -> np.ndarray:
    """Pixels [..., T, 3, H, W] in [-1, 1] -> uint8 frames [..., T, H, W, 3]."""
    return pixels.float().add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8).movedim(-3, -1).cpu().numpy()


def object_mask(scene: Scene, frames: Sequence[int], genes: Sequence[float], video: Tensor) -> Tensor:
    """Where the moving things are, [T, 1, H, W] in {0, 1}: the pixels that change when they are left out."""
    empty = to_pixels(render(Scene(scene.place, scene.time, ()), frames, genes))
    return ((video - empty).abs().amax(1, keepdim=True) > 0.05).float()


def genes_of(corner: Tensor) -> list[float]:
    """What the captions leave open, from the first pixel [Z] of the opening noise, Z >= `GENES`: uniform in [0, 1)."""
    return torch.special.ndtr(corner[:GENES]).tolist()


def random_genes(rng: random.Random, count: int = GENES) -> list[float]:
    return [rng.random() for _ in range(count)]
