"""No cache at all: earlier chunks are recomputed before each chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Geometry, Heads, Pages
from fkv.parameters import Frames
from fkv.roles import HeadRoles

from .base import ChunkState, Policy, check_whole_chunks


@dataclass(frozen=True)
class Recompute(Policy):
    """Generate the frames of `full` at the price of computing the history again and again.

    With a window this is how Krea Realtime stops errors from piling up: the frames of the window are recomputed, so
    nothing from before the window reaches the chunk through them. (Krea also encodes the first frame of the window
    again; this policy does not.)
    """

    name = "recompute"
    help = "no cache: recompute earlier chunks for each chunk, all or a window; the cost that caching saves"
    paper = "arXiv 2411.16375; krea.ai/blog/krea-realtime-14b"
    family = "baseline"
    reading = "every earlier frame + C3"
    caches = "none"

    window_frames: Annotated[
        Frames, Field(description="attended frames, the chunk's included; 0 for all earlier ones")
    ] = 0

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        check_whole_chunks("window_frames", self.window_frames, geometry)  # chunks are recomputed as a whole
        return None

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        recent = self.window_frames - len(state.frames) if self.window_frames else state.frames[-1] + 1
        return pages.frame > state.frames[-1] - recent
