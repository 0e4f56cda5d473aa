"""Rolling Sink: the opening of the stream is replayed at current positions in place of older frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Frames
from fkv.roles import HeadRoles

from .base import ChunkState, Policy, check_whole_chunks
from .kinds import KEPT, RECALLED
from .positions import pages_of, read_frames


@dataclass(frozen=True)
class RollingSink(Policy):
    """A window whose older chunks are replaced by chunks of the opening (arXiv 2602.07775, haodong2000/RollingSink).

    Reads M15 + R3 + C3 in every pass: the opening, backwards and forwards in turn, at the positions of the chunks that
    it replaces.
    """

    name = "rolling-sink"
    help = "a window that replays the opening, forwards and backwards, at current positions"
    paper = "arXiv 2602.07775"
    reading = "M15 + R3 + C3"
    checked = "haodong2000/RollingSink"

    window_frames: Annotated[Frames, Field(ge=1, description="attended frames, those of the chunk included")] = 21

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        check_whole_chunks("window_frames", self.window_frames, geometry)
        return None

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return (pages.frame < self.window_frames) | (pages.frame > state.frames[-1] - len(state.frames))

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        count, first = len(state.frames), state.frames[0]
        if first < self.window_frames:
            return None
        oldest = first + count - self.window_frames
        sources: list[int] = []
        for start in range(oldest, first + count, count):
            sources += self._replayed(start, count) if start < first - count else range(start, start + count)
        return read_frames(pages_of(group, state), np.array(sources), np.arange(oldest, first + count))

    def _replayed(self, start: int, count: int) -> range:
        """The frames of the opening that stand for the chunk that began at frame `start`."""
        if start + count < self.window_frames:
            return range(start, start + count)
        length = self.window_frames - count
        turn, at = divmod(start, length)
        return range(length - at - 1, length - at - 1 - count, -1) if turn % 2 else range(at, at + count)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        replayed = state.frames[0] >= self.window_frames and frame < state.frames[0] - len(state.frames)
        return RECALLED if replayed else KEPT
