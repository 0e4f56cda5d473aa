"""Commit Forcing: the context pass reads the newest frames alone, whatever the denoising passes read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fkv.pages import Geometry, Pages, Reads

from .base import ChunkState
from .positions import pages_of
from .wrapper import Wrapper

COMMIT = "commit:"
NOTE = "kept by the base"


@dataclass(frozen=True)
class Commit(Wrapper):
    """Another policy whose context pass reads the newest frames only. Written `commit:6 longlive`.

    From Commit Forcing (Dwell-Jing/commit-forcing): entries that are written without a view of the sink drift less.

    Args:
        base: The policy of the denoising passes.
        frames: Newest frames that the context pass reads, those of the chunk included.

    Raises:
        ValueError: for a policy without a context pass.
    """

    frames: int

    help = "another policy whose context pass reads the newest frames alone"
    paper = "github.com/Dwell-Jing/commit-forcing"

    def __post_init__(self) -> None:
        if self.base.caches != "shared":
            raise ValueError(f"policy {self.base.name!r} has no context pass that could read less")
        if self.frames < 1:
            raise ValueError(f"the context pass must read at least 1 frame, not {self.frames}")
        super().__post_init__()

    @property
    def title(self) -> str:
        return f"{COMMIT}{self.frames} {self.base.name}"

    @property
    def commit_frames(self) -> int:
        return self.frames

    def apart(self, geometry: Geometry) -> bool:
        return False

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        kept = self.base.keep_mask(group, pages, state)
        if state.step == "recache":
            return kept
        state.cache.notes.setdefault(NOTE, {})[group] = state.chunk, pages[kept].names
        later = self.frames - len(state.frames)
        return kept | (pages.frame > state.frames[-1] - later)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        reads = self.base.reads(group, state)
        pages = pages_of(group, state)
        if state.step != "context":
            return reads or Reads(np.flatnonzero(self._of_base(group, pages, state)))
        if not self.base.settled(state):
            return reads
        recent = np.flatnonzero(pages.frame > state.frames[-1] - self.frames)
        if reads is None or reads.position is None:
            return Reads(recent)
        at: dict[int, int] = {}
        for row, position in zip(reads.index.tolist(), reads.position.tolist(), strict=True):
            at.setdefault(row, position)
        return Reads(recent, np.array([at.get(row, pages.position[row]) for row in recent.tolist()]))

    def _of_base(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        """Mask of the pages that the base would hold while this chunk attends."""
        own = pages.frame >= state.frames[0]
        if not state.chunk:
            return own
        chunk, names = state.cache.notes.get(NOTE, {}).get(group, (None, ()))
        if chunk == state.chunk - 1:
            return own | pages.among(names)
        before = ChunkState(state.chunk - 1, tuple(f - len(state.frames) for f in state.frames), state.cache)
        return own | self.base.keep_mask(group, pages, before)
