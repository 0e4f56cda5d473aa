"""Decoded pixels -> the uint8 frames that a stream hands out."""

import numpy as np
import torch
from torch import Tensor


def to_frames(pixels: Tensor, low: float) -> np.ndarray:
    """Pixels [T, 3, H, W] with values from `low` to 1 -> uint8 [T, H, W, 3] on the CPU; values outside are clamped."""
    scaled = pixels.float().sub(low).mul_(255 / (1 - low)).clamp_(0, 255).round_()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
