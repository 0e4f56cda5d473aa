"""Commit Forcing: the context pass reads the newest frames alone, whatever the denoising passes read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

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
    Frames that the base has dropped stay for the context pass where it needs them; the base does not see them.

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

    def chunk_positions(self, state: ChunkState) -> Sequence[int] | None:
        return self.base.chunk_positions(self._seen_by_base(state)[1])

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        self.base.select(state if state.step == "context" else self._seen_by_base(state)[1], layer, query)

    def edit(self, state: ChunkState) -> None:
        self.base.edit(self._seen_by_base(state)[1])

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        masks, seen = self._seen_by_base(state)
        kept = masks[group].copy()
        kept[kept] = self.base.keep_mask(group, pages_of(group, seen), seen)
        if state.step == "recache":
            return kept
        state.cache.notes.setdefault(NOTE, {})[group] = state.chunk, pages[kept].names
        later = self.frames - len(state.frames)
        return kept | (pages.frame > state.frames[-1] - later)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        masks, seen = self._seen_by_base(state)
        pages, rows = pages_of(group, state), np.flatnonzero(masks[group])
        reads = self.base.reads(group, seen)
        recent = np.flatnonzero(pages.frame > state.frames[-1] - self.frames)
        alone = state.step == "context" and self.base.settled(state)
        if alone and (reads is None or reads.position is None):
            return Reads(recent)
        if reads is not None:
            reads = replace(reads, index=rows[reads.index])
        elif not masks[group].all():
            reads = Reads(rows)
        if not alone or reads is None or reads.position is None:
            return reads
        at = dict(zip(reads.index[::-1].tolist(), reads.position[::-1].tolist(), strict=True))
        own = at[int(np.flatnonzero(pages.frame == state.frames[-1])[0])]
        behind = own - state.frames[-1] + pages.frame  # of what the base does not read: as far away as it is old
        return Reads(recent, np.array([at.get(row, behind[row]) for row in recent.tolist()]))

    def _seen_by_base(self, state: ChunkState) -> tuple[dict[str, np.ndarray], ChunkState]:
        """The pages that the base would hold, as masks per head group, and the chunk as if there were no others."""
        cache, groups = state.cache, state.cache.groups
        key = state.chunk, state.step == "recache", [group.live for group in groups.values()]
        known, masks, view = cache.derived.get(NOTE, (None, {}, cache))
        if known != key:
            masks = {name: np.ones(group.live, bool) for name, group in groups.items()}
            for name, (chunk, names) in cache.notes.get(NOTE, {}).items():
                if chunk == state.chunk - 1 and name in groups and state.step != "recache":
                    pages = groups[name].pages
                    masks[name] = (pages.frame >= state.frames[0]) | pages.among(names)
            view = cache if all(mask.all() for mask in masks.values()) else cache.only(masks)
            cache.derived[NOTE] = key, masks, view
        return masks, replace(state, cache=view)
