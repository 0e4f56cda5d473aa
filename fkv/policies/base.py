"""What a policy is: which pages of the cache survive a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..cache import Geometry, Heads, KVCache, Pages
from ..roles import HeadRoles


@dataclass(frozen=True)
class Moment:
    """What a policy may look at when a chunk is committed: its index, its latent frames, the cache; and where the policy
    `watches` a pass of the chunk, its attention mass [layers, heads, query frames, key frames] with the key frames' numbers."""

    chunk: int
    frames: tuple[int, ...]
    cache: KVCache
    mass: np.ndarray | None = None
    key_frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Base of all policies: a frozen dataclass whose fields are the method's parameters.

    Subclasses override `survivors`; those with several head groups override `groups` too.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    caches: ClassVar[Literal["shared", "per-step", "none"]] = "shared"
    """One cache for all denoising steps, one for each, or none at all (earlier frames are recomputed)."""

    @property
    def segments(self) -> int:
        """Pages per latent frame."""
        return 1

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads] | None:
        """Head groups, name -> heads per layer. None: whatever groups the cache already has."""
        return None

    def survivors(self, group: str, pages: Pages, now: Moment) -> np.ndarray:
        """Boolean mask over `pages` of `group`: which of them later chunks attend to."""
        raise NotImplementedError

    def watches(self, chunk: int, cache: KVCache) -> str | None:
        """The pass of this chunk (`step 0`, ..., `context`) whose attention mass the policy wants to see."""
        return None

    def regroup(self, now: Moment) -> dict[str, Heads] | None:
        """New head groups from now on, for policies that class heads while they run; asked before `survivors`."""
        return None

    def commit(self, now: Moment) -> None:
        """Apply `survivors` to every group of the cache."""
        masks: Mapping[str, np.ndarray] = {name: self.survivors(name, group.pages, now) for name, group in now.cache.groups.items()}
        now.cache.commit(masks)
