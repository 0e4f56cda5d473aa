"""Where a stream stands, so that it can generate the same chunk again."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fkv.cache import KVCache, PageTable

from .state import StreamState


@dataclass(frozen=True)
class Snapshot:
    """Where a stream stands, so that it can generate the same chunk again.

    Args:
        index: Of the next chunk.
        caches: The caches of the stream.
        tables: The page tables of each.
        contents: Copies of the buffers of each where chunks lie apart, else nothing: no page is overwritten then.
        notes: What the policy remembers in each.
        latents: Chunk -> its latents, of chunks with cached frames.
    """

    index: int
    caches: tuple[KVCache, ...]
    tables: tuple[dict[str, PageTable], ...]
    contents: tuple[Sequence[Tensor], ...]
    notes: tuple[dict[str, Any], ...]
    latents: dict[int, Tensor]

    def __repr__(self) -> str:
        return f"Snapshot(before chunk {self.index})"

    @classmethod
    def of(cls, state: StreamState) -> Snapshot:
        """Remember where a stream stands."""
        return cls(
            state.index,
            tuple(state.caches),
            tuple(cache.page_tables() for cache in state.caches),
            tuple(cache.contents() if state.apart else () for cache in state.caches),
            tuple(deepcopy(cache.notes) for cache in state.caches),
            dict(state.latents),
        )

    def restore(self, state: StreamState) -> None:
        """Go back to where the stream stood."""
        state.index = self.index
        state.caches = list(self.caches)
        state.latents = dict(self.latents)
        stored = zip(self.caches, self.tables, self.contents, self.notes, strict=True)
        for cache, tables, contents, notes in stored:
            cache.restore(tables, contents)
            cache.notes = deepcopy(notes)
