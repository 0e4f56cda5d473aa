"""Sink frames and a window of recent ones, the same for all heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fkv.pages import Pages
from fkv.parameters import Frames

from .base import ChunkState, Family, Policy
from .kinds import KEPT, SINK


@dataclass(frozen=True)
class SlidingWindow(Policy):
    """Rolling window with an attention sink (StreamingLLM, arXiv 2309.17453; Self Forcing's rolling cache; LongLive).

    Raises:
        ValueError: The window leaves no room beside the sink.
    """

    name = "sliding-window"
    help = "keep the first frames (sink) and a window of recent ones, the same for every head"
    paper = "arXiv 2309.17453"
    family: ClassVar[Family] = "baseline"
    reading = "S1 + R5 + C3"
    checked = "guandeh17/Self-Forcing"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 1
    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_frames <= self.sink_frames:
            raise ValueError(f"window_frames ({self.window_frames}) must exceed sink_frames ({self.sink_frames})")

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return SINK if frame < self.sink_frames else KEPT

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        recent = self.window_frames - self.sink_frames - len(state.frames)
        return (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - recent)
