"""Infinity-RoPE: positions that never leave the window, with a flush and a cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Pages, Reads
from fkv.parameters import Frames

from .base import ChunkState
from .positions import pages_of, slot_order
from .sliding_window import SlidingWindow

CUT_POSITION = 45
"""Position of the first frame after a hard cut, as released."""


@dataclass(frozen=True)
class InfinityRope(SlidingWindow):
    """Sink 1 and a window of 6 frames at positions 0 to 5 (arXiv 2511.20649, yesiltepe-hidir/infinity-rope).

    Reads S1 + R2 + C3 in every pass. A flush keeps the sink and the two newest frames. A cut puts one chunk far away in
    time, so that it begins another scene.
    """

    name = "infinity-rope"
    help = "positions stay within a short window; a flush forgets the old prompt, a cut begins another scene"
    paper = "arXiv 2511.20649"
    family = "released"
    reading = "S1 + R2 + C3"
    checked = "yesiltepe-hidir/infinity-rope"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 1
    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 6

    @property
    def knows_cuts(self) -> bool:
        return True

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        count = len(state.frames)
        first = state.frames[0] if state.frames[0] < self.window_frames else self.window_frames - count
        if "cut" in state.marks:
            first = CUT_POSITION
        return range(first, first + count)

    def reads(self, group: str, state: ChunkState) -> Reads:
        pages = pages_of(group, state)
        index = np.arange(len(pages))
        position = slot_order(pages, index)
        if not self._is_flushed(pages, state):
            # The chunk's keys are read where its queries are, also where fewer frames are cached than the window holds.
            position += self.chunk_positions(replace(state, marks=frozenset()))[-1] - position.max()
        if "cut" in state.marks:
            position = np.where(pages.frame >= state.frames[0], pages.position, position)
        return Reads(index, position)

    def _is_flushed(self, pages: Pages, state: ChunkState) -> bool:
        """Whether the cache holds what a flush leaves: released code then reads it from position 0 in any window."""
        first = state.frames[0]
        return np.array_equal(np.unique(pages.frame[pages.frame < first]), [0, first - 2, first - 1])
