"""A window whose sink moves along in RoPE, so that it always sits near the oldest frame that is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fkv.pages import Pages, Reads
from fkv.parameters import Frames

from .base import ChunkState, Family
from .positions import moved, pages_of, read
from .sliding_window import SlidingWindow


@dataclass(frozen=True)
class NearSink(SlidingWindow):
    """Sink 3 and a window of 21 frames; the sink sits right before the oldest other frame that is read.

    Reads S3 + R15 + C3 in every pass. The sink baseline of Relax-Forcing and of Commit Forcing on Self Forcing.

    """

    name = "near-sink"
    help = "a window of 21 whose sink moves along, right before the oldest frame that is read"
    paper = "arXiv 2603.21366, baseline"
    family: ClassVar[Family] = "baseline"
    reading = "S3 + R15 + C3"
    checked = "zengqunzhao/Relax-Forcing"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 3
    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 21

    def sink_start(self, state: ChunkState) -> int:
        """Position of the first sink frame while this chunk attends."""
        return max(0, state.frames[-1] + 1 - self.window_frames)

    def positions(self, pages: Pages, state: ChunkState) -> np.ndarray:
        """Positions of all pages."""
        sink = np.arange(self.sink_frames)
        return moved(pages, sink, self.sink_start(state) + sink)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        if not self.sink_start(state):
            return None
        pages = pages_of(group, state)
        recent = pages.frame > state.frames[-1] - (self.window_frames - self.sink_frames)
        return read((pages.frame < self.sink_frames) | recent, self.positions(pages, state))


@dataclass(frozen=True)
class DeepSink(NearSink):
    """Deep Forcing's sink alone: 10 sink frames in a window of 21 (arXiv 2512.05081, `deep_sink_only`).

    Reads S10 + R8 + C3 in every pass. As released, a gap as long as a chunk stays between sink and tail.
    """

    name = "deep-sink"
    help = "Deep Forcing's long sink that moves along, without its token selection"
    paper = "arXiv 2512.05081"
    family = "released"
    reading = "S10 + R8 + C3"
    checked = "zengqunzhao/Relax-Forcing"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 10

    def sink_start(self, state: ChunkState) -> int:
        count = len(state.frames)
        first_without_room = (self.window_frames - count) // count * count + count
        return max(0, state.frames[0] - first_without_room)


@dataclass(frozen=True)
class SelfGradient(NearSink):
    """Self Gradient Forcing's cache for long streams: sink 3 and a window of 12, at the two ends of the training clip.

    Reads S3 + R6 + C3 in every pass. Once the stream is longer than the clip, the sink sits at the positions of the
    clip's first frames and the rest at those of its last, with a gap between (`kv_cache_position_mode`, top_aligned).
    The frame-wise model takes a sink of 4 and a window of 21.

    Raises:
        ValueError: The window is longer than the clip.
    """

    name = "self-gradient"
    help = "a window of 12 whose sink stays as far away as in the training clip"
    paper = "arXiv 2607.20368"
    family = "released"
    reading = "S3 + R6 + C3"
    checked = ""

    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 12
    clip_frames: Annotated[Frames, Field(description="length of the training clip (`kv_cache_train_frames`)")] = 21

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_frames < self.window_frames:
            raise ValueError(f"clip_frames ({self.clip_frames}) must not be below window_frames ({self.window_frames})")

    def sink_start(self, state: ChunkState) -> int:
        return max(0, state.frames[-1] + 1 - self.clip_frames)
