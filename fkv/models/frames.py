"""Decoded pixels as the uint8 frames that a stream hands out."""

import numpy as np
import torch
from torch import Tensor


def to_frames(pixels: Tensor, low: float = -1.0) -> np.ndarray:
    """Convert decoded pixels to video frames; values out of range are clamped.

    Args:
        pixels: Values from `low` to 1, [..., T, 3, H, W].
        low: The value of black.

    Returns:
        uint8 [..., T, H, W, 3] on the CPU.

    Raises:
        ValueError: Pixels are NaN, which would be shown as black.
    """
    scaled = pixels.float().sub(low).mul_(255 / (1 - low)).clamp_(0, 255).round_()
    if scaled.amax().isnan():
        raise ValueError(
            "the decoder gave pixels that are not numbers (NaN), so the stream ends here; its file may be damaged, or "
            "the latents too large for it: try another --decoder, or a lower strength of an adapter"
        )
    return scaled.to(torch.uint8).movedim(-3, -1).contiguous().cpu().numpy()
