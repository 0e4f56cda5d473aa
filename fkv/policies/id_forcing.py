"""ID-Forcing: keys and values are written as they were in training, whatever the stream has become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Pages, Reads
from fkv.parameters import Count

from .base import ChunkState, Policy
from .kinds import KEPT, SINK
from .positions import pages_of, slot_order

WINDOW_CHUNKS = 4
"""Chunks that a chunk reads after the native ones: the first, the two before it, itself."""


@dataclass(frozen=True)
class IdForcing(Policy):
    """Reads S3 + R6 + C3 when denoising, R3 + C3 in the context pass (In-Distribution-Forcing/ID-Forcing).

    The first 7 chunks are Self Forcing's own. From then on a chunk reads the first chunk and the two before it, at
    positions 0 to 11: the older one written with a view of itself only, the newer one on top of it. One more pass per
    chunk does so: before the context pass, the chunk before is written anew with a view of itself only. The released
    code writes the newer one anew instead, which gives the same keys.

    For LongLive, `native_chunks=1,chained=false`: every chunk is written with a view of itself only, without the pass.

    Raises:
        ValueError: chained chunks without room between sink and window.
    """

    name = "id-forcing"
    help = "a short window whose chunks are written without a view of the sink, as in training"
    paper = "github.com/In-Distribution-Forcing/ID-Forcing"
    reading = "S3 + R6 + C3"

    native_chunks: Annotated[
        Count, Field(ge=1, description="first chunks, which read and are written as usual; 1 for LongLive")
    ] = 7
    chained: Annotated[
        bool, Field(description="write the newest chunk on top of the one before it; false for LongLive")
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chained and self.native_chunks < WINDOW_CHUNKS - 1:
            raise ValueError(
                f"native_chunks ({self.native_chunks}) must be at least {WINDOW_CHUNKS - 1} where chunks are chained"
            )

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        if state.chunk + 1 < self.native_chunks:
            return np.ones(len(pages), bool)
        count = len(state.frames)
        return (pages.frame < count) | (pages.frame > state.frames[-1] - (WINDOW_CHUNKS - 2) * count)

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        first = len(state.cache.frames())
        return range(first, first + len(state.frames))

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        pages, count = pages_of(group, state), len(state.frames)
        if state.step == "rewrite":
            return Reads(pages.rows_of(state.frames))
        if state.step == "context" and state.chunk + 1 >= self.native_chunks:
            seen = 2 if self.chained else 1
            index = pages.rows_of(range(state.frames[-1] + 1 - seen * count, state.frames[-1] + 1))
            own = pages.position[pages.frame == state.frames[0]][0]
            return Reads(index, own + pages.frame[index] - state.frames[0])
        index = np.arange(len(pages))
        position = slot_order(pages, index)
        as_stored = state.chunk < self.native_chunks and np.array_equal(position, pages.position)
        return None if as_stored else Reads(index, position)

    def rewrites(self, state: ChunkState) -> int | None:
        return state.chunk - 1 if self.chained and state.chunk + 1 >= self.native_chunks else None

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return SINK if frame < len(state.frames) else KEPT
