"""Sink frames and a window of recent ones, the same for all heads."""

from dataclasses import dataclass

import numpy as np

from fkv.cache import Pages

from .base import ChunkState, Policy
from .kinds import KEPT


@dataclass(frozen=True)
class SlidingWindow(Policy):
    """Rolling window with an attention sink (StreamingLLM; Self Forcing's rolling cache; LongLive).

    sink_frames : first latent frames, kept for good.
    window_frames : frames that a chunk attends to in all, counting the sink and the chunk itself.
    """

    name = "sliding-window"
    help = "keep the first frames (sink) and a window of recent ones, the same for every head"
    paper = "arXiv 2309.17453"

    sink_frames: int = 1
    window_frames: int = 9

    def __post_init__(self) -> None:
        if self.sink_frames < 0 or self.window_frames <= self.sink_frames:
            raise ValueError(
                f"window_frames ({self.window_frames}) must exceed sink_frames ({self.sink_frames}), which must not be negative"
            )

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        kind = super().page_kind(group, frame, segment, state)
        return "sink" if kind == KEPT and frame < self.sink_frames else kind

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        recent = self.window_frames - self.sink_frames - len(state.frames)
        return (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - recent)
