"""LongLive's cache: a short window with a sink, at absolute or at relative positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Pages, Reads
from fkv.parameters import Frames

from .base import ChunkState
from .positions import pages_of, slot_order
from .sliding_window import SlidingWindow


@dataclass(frozen=True)
class LongLive(SlidingWindow):
    """Sink 3 and a window of 12 frames, as LongLive was trained (arXiv 2509.22622, NVlabs/LongLive v1.0).

    Reads S3 + R6 + C3 in every pass.

    A re-cache computes the window anew in one pass in which all its frames see each other.
    """

    name = "longlive"
    help = "LongLive's window of 12 with sink 3, at absolute or relative positions"
    paper = "arXiv 2509.22622"
    family = "released"
    reading = "S3 + R6 + C3"
    checked = "NVlabs/LongLive"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 3
    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 12
    relative: Annotated[bool, Field(description="read frames at positions 0, 1, 2, ... (`use_infinite_attention`)")] = (
        False
    )
    global_sink: Annotated[
        bool, Field(description="a re-cache keeps the first sink, else the window's oldest frames")
    ] = True

    @property
    def recache_frames(self) -> int:
        return self.window_frames

    def sink_mask(self, pages: Pages, state: ChunkState) -> np.ndarray:
        """Which pages are of the sink."""
        first = state.cache.notes.get("sink_start", 0)
        return (pages.frame >= first) & (pages.frame < first + self.sink_frames)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        if state.step == "recache":  # what is left of the cache before the pass
            if not self.global_sink:
                state.cache.notes["sink_start"] = state.frames[0]
            return self.sink_mask(pages, state) & (pages.frame < state.frames[0])
        recent = self.window_frames - self.sink_frames - len(state.frames)
        return self.sink_mask(pages, state) | (pages.frame > state.frames[-1] - recent)

    def chunk_positions(self, state: ChunkState) -> Sequence[int] | None:
        if not self.relative:
            return None
        first, count = len(state.cache.frames()), len(state.frames)
        if state.step == "recache":
            first = max(0, min(first, self.window_frames - count))
        return range(first, first + count)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        pages = pages_of(group, state)
        index = np.arange(len(pages))
        if state.step == "recache":
            frames = np.unique(pages.frame)
            dropped = state.frames[: max(0, len(frames) - self.window_frames)]
            index = np.flatnonzero(~np.isin(pages.frame, dropped))
        elif not self.relative:
            return None
        return Reads(index, slot_order(pages, index) if self.relative else None)
