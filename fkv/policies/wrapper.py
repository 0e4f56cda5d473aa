"""What policies share that change another one: everything they do not override is the base's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.pages import Geometry, Head, Heads, Pages, Reads
from fkv.roles import HeadRoles

from .base import ChunkState, Policy


@dataclass(frozen=True)
class Wrapper(Policy):
    """Another policy, with something changed.

    Args:
        base: The policy that is changed; caches, fp8, context noise and segments are its own.
    """

    base: Policy
    fp8: bool = field(init=False, compare=False)
    context_noise: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.title)
        for attribute in ("caches", "fp8", "context_noise"):
            object.__setattr__(self, attribute, getattr(self.base, attribute))

    @property
    def title(self) -> str:
        """The name of the policy."""
        raise NotImplementedError

    @property
    def unwrapped(self) -> Policy:
        return self.base.unwrapped

    @property
    def knows_cuts(self) -> bool:
        return self.base.knows_cuts

    @property
    def edits_pages(self) -> bool:
        return self.base.edits_pages

    @property
    def watches_attention(self) -> bool:
        return self.base.watches_attention

    @property
    def silenced_heads(self) -> tuple[Head, ...]:
        return self.base.silenced_heads

    @property
    def recache_frames(self) -> int:
        return self.base.recache_frames

    def segments_of(self, geometry: Geometry) -> int:
        return self.base.segments_of(geometry)

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        return self.base.stored(dtype)

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        return self.base.groups(geometry, roles)

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        return self.base.wants_attention(chunk, cache)

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        return self.base.reassign_heads(state)

    def apart(self, geometry: Geometry) -> bool:
        return self.base.apart(geometry)

    def chunk_positions(self, state: ChunkState) -> Sequence[int] | None:
        return self.base.chunk_positions(state)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        return self.base.reads(group, state)

    def selects(self, step: str, state: ChunkState) -> bool:
        return self.base.selects(step, state)

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        self.base.select(state, layer, query)

    def rewrites(self, state: ChunkState) -> int | None:
        return self.base.rewrites(state)

    def settled(self, state: ChunkState) -> bool:
        return self.base.settled(state)

    def edit(self, state: ChunkState) -> None:
        self.base.edit(state)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return self.base.keep_mask(group, pages, state)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return self.base.past_kind(group, frame, segment, state)
