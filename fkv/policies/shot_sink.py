"""LongLive 2.0: a window with two sinks, of the stream and of the shot, and a gap in time before each shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Pages
from fkv.parameters import Frames

from .base import ChunkState
from .kinds import KEPT, SINK
from .sliding_window import SlidingWindow


@dataclass(frozen=True)
class ShotSink(SlidingWindow):
    """Reads S8 + R16 + C8 of chunks of 8 frames, after a cut S16 + R8 + C8 (arXiv 2605.18739, NVlabs/LongLive).

    The first chunk after a cut is the sink of its shot: when the window has passed it by, it stays beside the first
    frames of the stream until the next cut. Every cut moves what follows by `shot_offset` positions in time.
    """

    name = "shot-sink"
    help = "a window with sinks of the stream and of the shot, and a gap in time before each shot"
    paper = "arXiv 2605.18739"
    family = "released"
    reading = "S8 + R21 + C3"
    checked = ""

    sink_frames: Annotated[Frames, Field(description="first frames of the stream and of a shot that are kept")] = 8
    window_frames: Annotated[Frames, Field(description="attended frames, those of sinks and chunk included")] = 32
    shot_offset: Annotated[int, Field(ge=0, description="positions that a cut skips (`multi_shot_rope_offset`)")] = 8

    @property
    def knows_cuts(self) -> bool:
        return True

    def shots(self, state: ChunkState) -> tuple[int, ...]:
        """First frames of the shots so far, but the first shot's."""
        before: tuple[int, ...] = state.cache.notes.get("shots", ())
        first = state.frames[0]
        return (*before, first) if "cut" in state.marks and 0 < first and first not in before else before

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        offset = self.shot_offset * len(self.shots(state))
        return range(state.frames[0] + offset, state.frames[-1] + 1 + offset)

    def sinks(self, frame: np.ndarray, state: ChunkState) -> np.ndarray:
        """Which frames are of the stream's sink or of the shot's, bool of the same shape."""
        first = self.shots(state)[-1:] or (0,)
        own = (frame >= first[0]) & (frame < first[0] + min(self.sink_frames, len(state.frames)))
        return (frame < self.sink_frames) | own

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        state.cache.notes["shots"] = self.shots(state)
        sinks = self.sinks(pages.frame, state)
        kept = len(np.unique(pages.frame[sinks]))
        others = np.unique(pages.frame[~sinks])
        room = max(0, self.window_frames - len(state.frames) - kept)
        return sinks | np.isin(pages.frame, others[len(others) - min(room, len(others)) :])

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return SINK if self.sinks(np.array(frame), state) else KEPT
