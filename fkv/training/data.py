"""Training clips of the toy world, rendered as they are needed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..world.captions import Scene
from ..world.render import render


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


def random_genes(rng: random.Random, count: int = 16) -> list[float]:
    return [rng.random() for _ in range(count)]
