"""No cache at all: earlier chunks are computed anew before each chunk."""

from dataclasses import dataclass

import numpy as np

from fkv.cache import Pages

from .base import ChunkState, Policy


@dataclass(frozen=True)
class Recompute(Policy):
    """With every earlier frame, the pictures of `full` at the price of computing the history again and again.

    With a window it is Krea Realtime's remedy against errors that pile up: the frames of the window are computed anew, so that
    nothing from before the window reaches the chunk through them. (Krea also encodes the window's first frame anew; not here.)

    window_frames : frames that a chunk attends to in all, counting the chunk itself; 0 for every earlier frame.
    """

    name = "recompute"
    help = "no cache: recompute earlier chunks for each chunk, all or a window; the cost that caching saves"
    paper = "arXiv 2411.16375; krea.ai/blog/krea-realtime-14b"
    caches = "none"

    window_frames: int = 0

    def __post_init__(self) -> None:
        if self.window_frames < 0:
            raise ValueError(
                f"window_frames must not be negative (0 for every earlier frame), it is {self.window_frames}"
            )

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        recent = self.window_frames - len(state.frames) if self.window_frames else state.frames[-1] + 1
        return pages.frame > state.frames[-1] - recent
