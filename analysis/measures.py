"""What can be measured of a video without knowing what it should show. Videos are uint8 [T, H, W, 3], RGB."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fkv import comparison

PEAK = 255.0


def motion(video: np.ndarray) -> np.ndarray:
    """Mean optical-flow magnitude between neighbouring frames in pixels (Farneback), float [T - 1].

    Raises ValueError when `video` is no video of at least two frames.
    """
    _check(video, 2)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    flows = (cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in zip(grey, grey[1:]))
    return np.array([np.linalg.norm(flow, axis=-1).mean() for flow in flows])


def chunk_discontinuity(video: np.ndarray, chunks: int) -> float:
    """How much the K - 1 greatest movements stand out, K being the number of chunks: their mean / the mean of all.

    Frames that jump at chunk borders raise it; 1 is a video that moves evenly, or not at all (arXiv 2605.09681).
    Raises ValueError when `chunks` is below 2 or exceeds the number of frames.
    """
    if not 2 <= chunks <= len(video):
        raise ValueError(f"chunk discontinuity needs between 2 chunks and one per frame ({len(video)}), not {chunks}")
    moved = np.sort(motion(video))
    mean = float(moved.mean())
    return float(moved[-(chunks - 1) :].mean()) / mean if mean > 1e-6 else 1.0


@dataclass(frozen=True)
class Drift:
    """How far the end of a video is from its beginning.

    colours : total variation between their colour histograms, averaged over R, G and B: 0 the same, 1 nothing shared.
    brightness : change of the mean grey level. contrast : change of the grey levels' standard deviation. Both in 0-255, signed.
    """

    colours: float
    brightness: float
    contrast: float


def drift(video: np.ndarray, fps: float, seconds: float = 5.0) -> Drift:
    """The last `seconds` of a video against its first `seconds`; shorter videos compare their halves.

    Raises ValueError when `video` is no video of at least two frames, or fps or seconds are not positive.
    """
    _check(video, 2)
    if fps <= 0 or seconds <= 0:
        raise ValueError(f"fps and seconds must be positive, they are {fps} and {seconds}")
    span = min(max(1, round(fps * seconds)), len(video) // 2)
    first, last = video[:span], video[-span:]
    shared = np.minimum(_histograms(first), _histograms(last)).sum(1).mean()
    a, b = _luma(first), _luma(last)
    return Drift(float(1 - shared), float(b.mean() - a.mean()), float(b.std() - a.std()))


def flicker(video: np.ndarray) -> float:
    """Mean distance of a frame's mean grey level from that of its two neighbours' average, in grey levels 0-255.

    A steady or evenly changing picture gives 0, one that alternates by d gives d.
    Raises ValueError when `video` is no video of at least three frames.
    """
    _check(video, 3)
    level = _luma(video).mean((1, 2))
    return float(np.abs(level[1:-1] - (level[:-2] + level[2:]) / 2).mean())


def psnr(video: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all frames; inf for equal videos. Raises ValueError when their shapes differ."""
    _check_pair(video, reference)
    value = comparison.psnr(video, reference)
    return float("inf") if value is None else value


def ssim(video: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity of the grey pictures, mean over frames, 1 for equal ones (Wang et al. 2004; Gaussian window
    of 11 pixels, sigma 1.5). Raises ValueError when the shapes differ."""
    _check_pair(video, reference)
    return float(np.mean([_ssim(a, b) for a, b in zip(_luma(video), _luma(reference))]))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    return float(
        ((2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()
    )


def _luma(video: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]).astype(np.float32)


def _histograms(video: np.ndarray) -> np.ndarray:
    """Histogram of each channel over all frames in 32 bins, each sums to 1: [3, 32]."""
    counts = [np.bincount(video[..., channel].reshape(-1) >> 3, minlength=32) for channel in range(3)]
    return np.array(counts) / video[..., 0].size


def _check(video: np.ndarray, least: int) -> None:
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or len(video) < least:
        raise ValueError(
            f"a uint8 video [T, H, W, 3] of at least {least} frames is needed, not {video.dtype} {list(video.shape)}"
        )


def _check_pair(video: np.ndarray, reference: np.ndarray) -> None:
    _check(video, 1), _check(reference, 1)
    if video.shape != reference.shape:
        raise ValueError(
            f"the videos must have the same size and length, they are {list(video.shape)} and {list(reference.shape)}"
        )
