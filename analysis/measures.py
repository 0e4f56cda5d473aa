"""Measures of a video that need no knowledge of what it should show. Videos are uint8 [T, H, W, 3], RGB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from fkv import comparison

PEAK = 255.0
EQUAL_DB = 100.0  # PSNR that stands for equal videos
HUES = 180  # bins of a hue histogram, as OpenCV counts hues
MOVES = 0.5  # pixels per frame from which a pixel counts as moving


def motion(video: np.ndarray) -> np.ndarray:
    """Return the mean optical-flow magnitude between neighbouring frames in pixels (Farneback), float [T - 1].

    Raises:
        ValueError: `video` is not a video of at least two frames.
    """
    return movement(video)[0]


def movement(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `motion`, and the share of pixels that move by `MOVES` or more between neighbouring frames, [T - 1] each.

    Raises:
        ValueError: `video` is not a video of at least two frames.
    """
    _check(video, 2)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    flow: Any = None  # OpenCV allocates the result; its types do not know that
    flows = (cv2.calcOpticalFlowFarneback(a, b, flow, 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in pairwise(grey))
    lengths = (np.sqrt(flow[..., 0] ** 2 + flow[..., 1] ** 2) for flow in flows)
    mean, share = zip(*((each.mean(), (each >= MOVES).mean()) for each in lengths), strict=True)
    return np.array(mean), np.array(share)


def chunk_discontinuity(video: np.ndarray, chunks: int) -> float:
    """Return how much the `chunks` - 1 greatest movements stand out: their mean / the mean of all (arXiv 2605.09681).

    Frames that jump at chunk borders raise it; 1 is a video that moves evenly, or not at all.

    Args:
        video: uint8 [T, H, W, 3].
        chunks: Number of chunks of the video.

    Raises:
        ValueError: `chunks` is below 2 or exceeds the number of frames.
    """
    if not 2 <= chunks <= len(video):
        raise ValueError(f"chunk discontinuity needs between 2 chunks and one per frame ({len(video)}), not {chunks}")
    return jumps(motion(video), chunks)


def jumps(moved: np.ndarray, chunks: int) -> float:
    """Return `chunk_discontinuity` of a video with this `motion`."""
    mean = float(moved.mean())
    return float(np.sort(moved)[-(chunks - 1) :].mean()) / mean if mean > 1e-6 else 1.0


@dataclass(frozen=True)
class Drift:
    """Distance of the end of a video from its beginning.

    Args:
        colours: Total variation between their colour histograms, averaged over R, G and B: 0 equal, 1 nothing shared.
        brightness: Change of the mean grey level, -255 to 255.
        contrast: Change of the grey levels' standard deviation, -255 to 255.
    """

    colours: float
    brightness: float
    contrast: float


def drift(video: np.ndarray, fps: float, seconds: float = 5.0) -> Drift:
    """Compare the last seconds of a video with its first; shorter videos compare their halves.

    Args:
        video: uint8 [T, H, W, 3].
        fps: Frames per second of the video.
        seconds: Length of each end.

    Raises:
        ValueError: `video` is not a video of at least two frames, or fps or seconds are not positive.
    """
    _check(video, 2)
    if fps <= 0 or seconds <= 0:
        raise ValueError(f"fps and seconds must be positive, they are {fps} and {seconds}")
    first, last = ends(video, round(fps * seconds))
    colours = colour_distance(colour_shares(first), colour_shares(last))
    a, b = _luma(first), _luma(last)
    return Drift(colours, float(b.mean() - a.mean()), float(b.std() - a.std()))


def ends(values: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last `span` values, at least one; the halves where there are fewer than two spans."""
    span = max(1, min(span, len(values) // 2))
    return values[:span], values[-span:]


def change(values: np.ndarray, span: int) -> float:
    """Return the mean of the last `span` values minus that of the first, see `ends`."""
    first, last = ends(np.asarray(values, float), span)
    return float(last.mean() - first.mean())


def hue_kept(video: np.ndarray, fps: float, seconds: float = 5.0) -> float:
    """Return how much of the hues of the first seconds is left in the last, 0 to 100 %; shorter videos compare halves.

    100 (1 - half the distance of the two hue histograms), as ID-Forcing reports colour drift
    (github.com/In-Distribution-Forcing/ID-Forcing). Grey has the hue of red.

    Args:
        video: uint8 [T, H, W, 3].
        fps: Frames per second of the video.
        seconds: Length of each end.

    Raises:
        ValueError: `video` is not a video of at least two frames.
    """
    _check(video, 2)
    a, b = (_hue_shares(end) for end in ends(video, round(fps * seconds)))
    return float(100 * np.minimum(a, b).sum())


def _hue_shares(video: np.ndarray) -> np.ndarray:
    """Return the hue histogram of all frames, with sum 1: [HUES]."""
    counts = np.zeros(HUES)
    for frame in video:
        counts += np.bincount(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 0].reshape(-1), minlength=HUES)
    return counts / counts.sum()


def per_second(video: np.ndarray, fps: float) -> dict[str, np.ndarray]:
    """Return what a video looks like second by second; a last part shorter than half a second counts to the one before.

    Args:
        video: uint8 [T, H, W, 3].
        fps: Frames per second of the video.

    Returns:
        Means over the frames of each second: `saturation` (of HSV, 0 to 1), `detail` (absolute Laplacian of the grey
        level, in grey levels) and `brightness` (grey level, 0 to 255).

    Raises:
        ValueError: `video` is not a video.
    """
    _check(video, 1)
    saturation, detail, brightness = [], [], []
    for frame in video:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        saturation.append(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() / PEAK)
        detail.append(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean())
        brightness.append(grey.mean())
    count = max(1, round(len(video) / fps))
    borders = [round(second * fps) for second in range(1, count)]
    series = {"saturation": saturation, "detail": detail, "brightness": brightness}
    return {name: np.array([part.mean() for part in np.split(values, borders)]) for name, values in series.items()}


def colour_shares(video: np.ndarray) -> np.ndarray:
    """Return the histogram of each channel over all frames of a video in 32 bins, each with sum 1: [3, 32]."""
    counts = [np.bincount(video[..., channel].reshape(-1) >> 3, minlength=32) for channel in range(3)]
    return np.array(counts) / video[..., 0].size


def colour_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the total variation between two results of `colour_shares`, averaged over R, G and B: 0 equal, 1 nothing
    shared."""
    return float(1 - np.minimum(a, b).sum(1).mean())


def flicker(video: np.ndarray) -> float:
    """Return the mean distance of a frame's mean grey level from the average of its two neighbours', 0 to 255.

    A steady or evenly changing video gives 0, one that alternates by d gives d.

    Raises:
        ValueError: `video` is not a video of at least three frames.
    """
    _check(video, 3)
    level = _luma(video).mean((1, 2))
    return float(np.abs(level[1:-1] - (level[:-2] + level[2:]) / 2).mean())


def bounded_psnr(video: np.ndarray, reference: np.ndarray) -> float:
    """Return `fkv.comparison.psnr` over all frames in dB, at most `EQUAL_DB`, which stands for equal videos.

    Raises:
        ValueError: The shapes differ.
    """
    _check_pair(video, reference)
    value = comparison.psnr(video, reference)
    return EQUAL_DB if value is None else min(EQUAL_DB, value)


def ssim(video: np.ndarray, reference: np.ndarray) -> float:
    """Return the structural similarity of the grey frames, averaged over frames; 1 for equal videos.

    After Wang et al. 2004, with a Gaussian window of 11 pixels and sigma 1.5.

    Raises:
        ValueError: The shapes differ.
    """
    _check_pair(video, reference)
    return float(np.mean([_ssim(a, b) for a, b in zip(_luma(video), _luma(reference), strict=True)]))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    c1 = (0.01 * PEAK) ** 2
    c2 = (0.03 * PEAK) ** 2
    mean_a = blur(a)
    mean_b = blur(b)
    var_a = blur(a * a) - mean_a**2
    var_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float((luminance * structure).mean())


def _luma(video: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]).astype(np.float32)


def _check(video: np.ndarray, least: int) -> None:
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or len(video) < least:
        raise ValueError(
            f"a uint8 video [T, H, W, 3] of at least {least} frames is needed, not {video.dtype} {list(video.shape)}"
        )


def _check_pair(video: np.ndarray, reference: np.ndarray) -> None:
    _check(video, 1)
    _check(reference, 1)
    if video.shape != reference.shape:
        raise ValueError(
            f"the videos must have the same size and length, they are {list(video.shape)} and {list(reference.shape)}"
        )
