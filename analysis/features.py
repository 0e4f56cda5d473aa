"""What a frame looks like as a vector, and how alike clips of a video are by it.

Two kinds of features: the layout of colours, which needs no weights, and those of a vision model of the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch

Features = Callable[[np.ndarray], np.ndarray]
"""From frames, uint8 [N, H, W, 3], to vectors of length 1, float [N, size]."""

LAYOUT = "layout"
GRID = (10, 6)  # columns and rows of a layout
CLIP_SECONDS = 2  # length of a clip, as in VBench-Long
BATCH = 32  # frames that a vision model sees at once


def layout(frames: np.ndarray) -> np.ndarray:
    """Return the colours of a grid of fields around mid-grey, as vectors of length 1; see `Features`."""
    small = [cv2.resize(frame, GRID, interpolation=cv2.INTER_AREA).reshape(-1) for frame in frames]
    return _unit(np.array(small) / 127.5 - 1)


@lru_cache(maxsize=2)
def load(name: str, device: str = "cpu") -> Features:
    """Return the features of a name.

    Args:
        name: `layout`, or a vision model of the Hub such as `facebook/dinov2-small`, or the folder of one; its pooled
            output, or the mean over its tokens, is the vector.
        device: Where the model runs.

    Raises:
        ValueError: The model cannot be loaded.
    """
    if name == LAYOUT:
        return layout
    from transformers import AutoImageProcessor, AutoModel

    try:
        prepare = AutoImageProcessor.from_pretrained(name)
        model = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot load features from {name!r}: {str(error).splitlines()[0]}; name a vision model of the Hub, or "
            f"{LAYOUT}"
        ) from None

    @torch.inference_mode()
    def features(frames: np.ndarray) -> np.ndarray:
        found = []
        for first in range(0, len(frames), BATCH):
            pixels = prepare(list(frames[first : first + BATCH]), return_tensors="pt")["pixel_values"].to(device)
            out = model(pixel_values=pixels)
            pooled = getattr(out, "pooler_output", None)
            vectors = out.last_hidden_state.mean(1) if pooled is None else pooled
            found.append(vectors.flatten(1).float().cpu().numpy())
        return _unit(np.concatenate(found))

    return features


def of_clips(video: np.ndarray, fps: float, features: Features) -> np.ndarray:
    """Return the features of the first frame of every clip of `CLIP_SECONDS`, [clips, size]."""
    return features(video[:: max(1, round(CLIP_SECONDS * fps))])


def clip_consistency(clips: np.ndarray) -> float | None:
    """Return how alike clips are: the mean cosine with the clip before and with the first, negative ones as 0.

    VBench-Long's clip-to-clip consistency (Vchitect/VBench), with other features.

    Args:
        clips: Vectors of length 1, [clips, size].

    Returns:
        0 to 1, None for fewer than two clips.
    """
    if len(clips) < 2:
        return None
    before = np.sum(clips[1:] * clips[:-1], -1)
    first = clips[1:] @ clips[0]
    return float((np.maximum(before, 0) + np.maximum(first, 0)).mean() / 2)


def mean_of(clips: np.ndarray) -> np.ndarray:
    """Return the mean of vectors as a vector of length 1, [size]."""
    return _unit(clips.mean(0))


def identity(end: np.ndarray, opening: np.ndarray, others: Sequence[np.ndarray]) -> float | None:
    """Return how much more the end of a video is like its own opening than like those of other seeds of its prompt.

    What the prompt alone makes alike cancels (Commit Forcing, github.com/Dwell-Jing/commit-forcing).

    Args:
        end: Features of the end, of length 1, [size].
        opening: Those of its opening.
        others: Those of the openings of other seeds.

    Returns:
        A difference of cosines, -2 to 2; None without other seeds.
    """
    if not others:
        return None
    return float(end @ opening - np.mean([end @ other for other in others]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale the last axis to length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
