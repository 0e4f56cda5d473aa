"""FadeMem: a fixed number of memory frames, in which neighbours merge the sooner the older they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.cache import KVCache
from fkv.pages import Pages, Reads
from fkv.parameters import Frames

from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of, read_frames

# The positions that the model was trained on: 18 frames of history and a chunk of 3 (constants of the released code).
HISTORY = 18
NEWEST = 3


@dataclass(frozen=True)
class Entry:
    """A memory frame that stands for `span` frames around the frame `centre`; `frame` is the oldest of them."""

    frame: int
    centre: int
    span: int = 1


@dataclass(frozen=True)
class FadeMem(Policy):
    """Reads M12 + C3 in every pass (arXiv 2606.10671, aniki-ly/FadeMem).

    Every frame enters the memory. When it is full, the two neighbours merge whose ages differ least after warping.
    Frame 0 is never changed, and the two newest entries do not merge. From frame 18 on, an entry sits at the position
    nearest to its warped age within the trained ones.
    """

    name = "fade-mem"
    help = "a fixed number of memory frames that merge the sooner the older they are"
    paper = "arXiv 2606.10671"
    reading = "M12 + C3"
    checked = "aniki-ly/FadeMem"

    slots: Annotated[Frames, Field(ge=5, le=15, description="memory frames (`summary_slots`)")] = 12
    warp: Annotated[float, Field(gt=0, le=1, description="exponent of the ages (`warp_beta`)")] = 0.3
    span_power: Annotated[float, Field(ge=0, description="exponent of spans as merge weights (`span_gamma`)")] = 0.5

    def entries(self, cache: KVCache) -> list[Entry]:
        """The memory, oldest first."""
        return cache.notes.get("entries", [])

    def _placed(self, state: ChunkState) -> bool:
        """Whether the memory is placed within the trained positions."""
        return state.frames[0] >= HISTORY and len(self.entries(state.cache)) == self.slots

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        return range(HISTORY, HISTORY + len(state.frames)) if self._placed(state) else state.frames

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        entries = self.entries(state.cache)
        if not entries:
            return None
        places = self.positions(state.frames[0], entries) if self._placed(state) else [each.centre for each in entries]
        frames = np.array([*(entry.frame for entry in entries), *state.frames])
        return read_frames(pages_of(group, state), frames, np.array([*places, *self.chunk_positions(state)]))

    def positions(self, start: int, entries: Sequence[Entry]) -> list[int]:
        """Place every entry before the chunk that begins at frame `start`."""
        places = [0]
        far = entries[1 : len(entries) - NEWEST]
        last = HISTORY
        for i, entry in enumerate(far):
            target = min(max(start - entry.centre, NEWEST + 1), HISTORY - 1)
            gaps = range(NEWEST + len(far) - i, last)
            last = min(gaps, key=lambda gap: (round(abs(gap**self.warp - target**self.warp), 12), gap))
            places.append(HISTORY - last)
        return places + list(range(HISTORY - NEWEST, HISTORY))

    def edit(self, state: ChunkState) -> None:
        cache = state.cache
        start = state.frames[-1] + 1
        cached = set(cache.frames())
        entries = [entry for entry in self.entries(cache) if entry.frame in cached]  # a flush may have dropped some
        newest = entries[-1].centre if entries else -1
        self._fit(cache, entries, start)
        for frame in state.frames:
            if frame > newest:  # after a switch between chunks the memory has them
                entries.append(Entry(frame, frame))
                self._fit(cache, entries, start)
        cache.notes["entries"] = entries

    def _fit(self, cache: KVCache, entries: list[Entry], start: int) -> None:
        """Merge entries until the memory has room for all."""
        while len(entries) > self.slots:
            self._merge(cache, entries, self.pair(entries, start))

    def pair(self, entries: Sequence[Entry], start: int) -> int:
        """Index of the older of the two neighbours that merge before the chunk that begins at frame `start`."""
        ages = np.array([(start - entry.centre) ** self.warp for entry in entries])
        return int(np.argmin(np.abs(ages[:-1] - ages[1:])[:-1]))

    def _merge(self, cache: KVCache, entries: list[Entry], i: int) -> None:
        """Merge an entry with the next newer one."""
        old, new = entries[i], entries[i + 1]
        span = old.span + new.span
        if old.frame == 0:
            entries[i : i + 2] = [replace(old, span=span)]
            return
        weights = np.array([old.span, new.span], float) ** self.span_power
        share, other = weights / weights.sum()
        for name, group in cache.groups.items():
            rows = [group.pages.rows_of([entry.frame]) for entry in (old, new)]
            if not all(len(each) for each in rows):
                continue
            for layer, heads in enumerate(group.heads):
                if heads:
                    contents = zip(*(cache.unrotated(layer, name, each) for each in rows), strict=True)
                    cache.edit(layer, name, rows[0], *(share * a + other * b for a, b in contents))
        centre = round((old.centre * old.span + new.centre * new.span) / span)
        entries[i : i + 2] = [Entry(old.frame, centre, span)]

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return np.isin(pages.frame, [entry.frame for entry in self.entries(state.cache)])

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame == 0:
            return SINK
        merged = any(entry.frame == frame and entry.span > 1 for entry in self.entries(state.cache))
        return RECALLED if merged else KEPT
