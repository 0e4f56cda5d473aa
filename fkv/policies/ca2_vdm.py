"""Ca2-VDM: a queue of clean frames whose positions never leave the queue, and a slightly noised context pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Frames
from fkv.roles import HeadRoles

from .base import ChunkState, ContextNoise, Policy, check_whole_chunks
from .positions import pages_of, slot_order


@dataclass(frozen=True)
class Ca2Vdm(Policy):
    """A queue of earlier frames, read at the positions 0, 1, ... of the queue (arXiv 2411.16375).

    The keys of a frame are turned once, from where they are stored to their rank in the queue, so positions stay small
    in a stream of any length. The context pass reads slightly noised latents, as the authors perturb the clean prefix:
    a remedy for drift. Their causal mask inside a chunk and their trained attention to the newest frames need their
    weights and are left out.
    """

    name = "ca2-vdm"
    help = "a queue of clean frames with bounded positions; the context pass reads slightly noised latents"
    paper = "arXiv 2411.16375"
    reading = "R24 + C3"

    prefix_frames: Annotated[
        Frames, Field(ge=1, description="frames of the queue, whole chunks (`kv_cache_max_seqlen`)")
    ] = 24
    _: KW_ONLY
    context_noise: ContextNoise = 0.05

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        check_whole_chunks("prefix_frames", self.prefix_frames, geometry)
        return None

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        first = min(state.frames[0], self.prefix_frames)
        return range(first, first + len(state.frames))

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        pages = pages_of(group, state)
        rank = slot_order(pages, np.arange(len(pages)))
        position = self.chunk_positions(state)[-1] + rank - rank.max()
        return None if np.array_equal(position, pages.position) else Reads(np.arange(len(pages)), position)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return pages.frame > state.frames[-1] - self.prefix_frames
