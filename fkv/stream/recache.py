"""Earlier chunks whose keys and values are computed anew, from their latents."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from fkv.cache import KVCache, regrouped
from fkv.policies import ChunkState, evict

from .state import StreamState


def replay(state: StreamState, chunks: Iterable[int]) -> KVCache:
    """Make a new cache of earlier chunks, each recomputed under the prompt in force."""
    cache = state.new_cache()
    for chunk in chunks:
        frames = state.frames(chunk)
        positions = state.caches[0].positions_of(frames)
        cache.begin(frames, positions)
        state.rebuild(state.context_latents(chunk, state.latents[chunk]), cache, state.rope(positions))
        cache.evict({name: np.ones(len(group.pages), bool) for name, group in cache.groups.items()})
    return cache


def recache(state: StreamState) -> KVCache:
    """Recompute the cached pages under the prompt in force (LongLive's KV re-cache, arXiv 2509.22622)."""
    if state.policy.recache_frames:
        return _newest_at_once(state)
    old = state.caches[0]
    new = regrouped(replay(state, state.cached_chunks()), old.heads, old.segments)
    cached = {name: group.pages.names for name, group in old.groups.items()}
    new.evict({name: group.pages.among(cached[name]) for name, group in new.groups.items()})
    new.notes = old.notes
    return regrouped(new, new.heads, new.segments)


def _newest_at_once(state: StreamState) -> KVCache:
    """Recompute the newest frames in one pass that sees them all, as many as the policy says."""
    policy = state.policy
    end = state.index * state.geometry.frames_per_chunk
    frames = tuple(range(max(0, end - policy.recache_frames), end))
    old = state.caches[0]
    cache = regrouped(old, old.heads, old.segments)
    seen = ChunkState(state.index, frames, cache, step="recache")
    cache.evict({name: policy.keep_mask(name, group.pages, seen) for name, group in cache.groups.items()})
    positions = policy.chunk_positions(seen) or frames
    cache.begin(frames, positions)
    cache.reading.choose({name: policy.reads(name, seen) for name in cache.groups})
    chunks = [state.context_latents(chunk, state.latents[chunk]) for chunk in sorted(state.latents)]
    latents = torch.cat(chunks, 1)[:, -len(frames) :]
    state.rebuild(latents, cache, state.rope(positions))
    return evict(policy, ChunkState(state.index - 1, state.frames(state.index - 1), cache))
