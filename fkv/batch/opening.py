"""What several policies have in common: as long as one has dropped nothing, it generates what others generate."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from fkv.models.page_tables import PageTableCache, simulated
from fkv.pages import Geometry, Pages
from fkv.policies import ChunkState, Policy
from fkv.policies.wrapper import Wrapper
from fkv.roles import HeadRoles

MAX_CHUNKS = 48  # longer openings are not looked for


@dataclass(frozen=True)
class Opening:
    """The first chunks under a policy, which attend to everything before them.

    Args:
        kind: Equal for policies that generate these chunks alike, to the last bit.
        chunks: How many.
    """

    kind: Hashable
    chunks: int


@dataclass(frozen=True)
class Undropped(Wrapper):
    """Another policy that drops nothing, for the chunks that several policies have in common."""

    help = "another policy that drops nothing"

    @property
    def title(self) -> str:
        return self.base.name

    def apart(self, geometry: Geometry) -> bool:
        return False

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return np.ones(len(pages), bool)


@lru_cache(maxsize=1024)
def opening_of(geometry: Geometry, policy: Policy, roles: HeadRoles | None, chunks: int, dtype: torch.dtype) -> Opening:
    """Find how long a policy keeps and reads everything, from page tables alone.

    Args:
        geometry: Of the stream.
        policy: The policy.
        roles: Head roles, for policies that need them.
        chunks: Length of the stream.
        dtype: Of the model.
    """
    groups = policy.groups(geometry, roles) or geometry.every_head
    segments = policy.segments_of(geometry)
    kind = (*groups.items(), segments, policy.stored(dtype), policy.context_noise)
    reassigns = policy.overrides("reassign_heads")
    if policy.caches != "shared" or policy.watches_attention or policy.edits_pages or reassigns:
        return Opening(kind, 0)
    count = 0
    for state in simulated(geometry, policy, roles, min(chunks, MAX_CHUNKS), dtype):
        cache = state.cache
        assert isinstance(cache, PageTableCache)
        pages = (state.frames[-1] + 1) * segments
        whole = all(len(group.pages) == pages for group in cache.groups.values())
        # What a policy has noted or seen in the keys by now would be missing where it takes over.
        if not whole or cache.notes or cache.contents_seen or not _reads_everything(policy, state):
            break
        count += 1
    return Opening(kind, count)


def _reads_everything(policy: Policy, state: ChunkState) -> bool:
    if policy.chunk_positions(state) is not None:
        return False
    passes = [replace(state, step=step) for step in ("step 0", "context")]
    return all(policy.reads(name, each) is None for each in passes for name in state.cache.groups)
