"""What is measured of one stream of an evaluation, and of perfect ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from fkv.records import Record
from fkv.report import rates
from fkv.stream import Chunk, video_of
from fkv.world import FPS
from fkv.world.captions import Scene

from .adherence import WINDOW_SECONDS, adherence, adherence_by_scene
from .evaluation_streams import chunks_of
from .held_out import held_out_scene, rendered
from .measures import bounded_psnr, chunk_discontinuity, drift, flicker, ssim


def measure(
    chunks: Sequence[Chunk],
    scene: Scene | None,
    seconds: float,
    reference: np.ndarray | None = None,
    events: bool = False,
) -> Record:
    """Measure one stream.

    Args:
        chunks: The chunks of the stream.
        scene: The scene that the video should show; None for the scenes that the prompts of the chunks describe.
        seconds: Length of the stream.
        reference: The video of the full cache from the same seed, if there is one.
        events: As in `adherence`.

    Returns:
        adherence, the measures of `measure_motion`, psnr_to_full (dB, `EQUAL_DB` for equal videos) and ssim_to_full,
        fps_denoise and fps_end_to_end (see `fkv.report.FPS_MEANING`), and kv_bytes_peak, the most bytes of K and V
        cached while a chunk attended.
    """
    video = video_of(chunks)
    return {
        "adherence": adherence(video, scene, seconds, events) if scene else adherence_by_scene(chunks, events),
        **measure_motion(video, len(chunks)),
        "psnr_to_full": None if reference is None else bounded_psnr(video, reference),
        "ssim_to_full": None if reference is None else ssim(video, reference),
        **rates(chunks),
        "kv_bytes_peak": max(chunk.kv_bytes for chunk in chunks),
    }


def measure_motion(video: np.ndarray, chunks: int) -> Record:
    """Measure a video of `chunks` chunks without a prompt or a reference."""
    return {
        "discontinuity": chunk_discontinuity(video, chunks),
        "drift": asdict(drift(video, FPS, WINDOW_SECONDS)),
        "flicker": flicker(video),
    }


def measure_renders(prompts: int, seconds: float) -> dict[str, float]:
    """Average `measure_motion` over renders of the held-out scenes: the figures of a perfect stream of this world."""
    chunks = chunks_of(seconds)
    videos = (rendered(held_out_scene(index), chunks, index) for index in range(prompts))
    return pd.json_normalize([measure_motion(video, chunks) for video in videos]).mean().to_dict()
