"""The toy world as tensors: pixels of frames, and genes of a chunk's noise."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from .render import GENES


def to_pixels(frames: np.ndarray) -> Tensor:
    """Turn uint8 frames [T, H, W, 3] into floats in [-1, 1], [T, 3, H, W]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def genes_of(corner: Tensor, count: int = GENES) -> list[float]:
    """Map the first pixel of a chunk's noise, [Z] with Z >= `count`, to genes that are uniform in [0, 1)."""
    return torch.special.ndtr(corner[:count]).tolist()


def noise_of(gene: float) -> Tensor:
    """Map a gene to the noise that holds it, a scalar; the inverse of `genes_of`."""
    return torch.special.ndtri(torch.tensor(gene))


def random_genes(rng: random.Random, count: int = GENES) -> list[float]:
    """Draw genes, uniform in [0, 1)."""
    return [rng.random() for _ in range(count)]
