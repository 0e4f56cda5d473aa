"""What a policy is: which pages of the cache survive a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from fkv.cache import Geometry, Heads, KVCache, Pages
from fkv.roles import HeadRoles

from .kinds import CURRENT, KEPT


@dataclass(frozen=True)
class ChunkState:
    """What a policy may look at when a chunk is committed: its index, its latent frames, the cache; and where the policy
    `wants_attention` a pass of the chunk, its attention mass [layers, heads, query frames, key frames] with the key frames' numbers."""

    chunk: int
    frames: tuple[int, ...]
    cache: KVCache
    mass: np.ndarray | None = None
    key_frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Base of all policies: a frozen dataclass whose fields are the method's parameters.

    Subclasses override `keep_mask`; those with several head groups override `groups` too.

    fp8 : store K and V in 8 bits (float8 e4m3): half of bfloat16's memory, and every pass widens what it reads.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    caches: ClassVar[Literal["shared", "per-step", "none"]] = "shared"
    """One cache for all denoising steps, one for each, or none at all (earlier frames are recomputed)."""

    fp8: bool = field(default=False, kw_only=True)

    @property
    def segments(self) -> int:
        """Pages per latent frame."""
        return 1

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        """In which type K and V are stored for a model that computes in `dtype`."""
        return torch.float8_e4m3fn if self.fp8 else dtype

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        """Head groups, name -> heads per layer. None: whatever groups the cache already has."""
        return None

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        """Boolean mask over `pages` of `group`: which of them later chunks attend to."""
        raise NotImplementedError

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        """Say what a page is for while the chunk of `state` attends to it.

        Args:
            group: head group that holds the page.
            frame: latent frame of the page.
            segment: segment of that frame.
            state: the chunk that attends; its cache holds the page.

        Returns:
            A key of `fkv.policies.kinds.KINDS`.
        """
        return CURRENT if frame >= state.frames[0] else KEPT

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        """The pass of this chunk (`step 0`, ..., `context`) whose attention mass the policy wants to see."""
        return None

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        """New head groups from now on, for policies that class heads while they run; asked before `keep_mask`."""
        return None

    def commit(self, state: ChunkState) -> None:
        """Apply `keep_mask` to every group of the cache."""
        masks: Mapping[str, np.ndarray] = {
            name: self.keep_mask(name, group.pages, state) for name, group in state.cache.groups.items()
        }
        state.cache.evict(masks)
