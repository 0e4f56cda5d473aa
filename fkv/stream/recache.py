"""Earlier chunks whose keys and values are computed anew, from their latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from fkv.cache import KVCache, regrouped
from fkv.policies import ChunkState, evict

from .state import StreamState


def replay(state: StreamState, chunks: Iterable[int]) -> KVCache:
    """Make a new cache of earlier chunks, each recomputed under the prompt in force.

    Each is at the positions at which the old cache stores it; where that stores several at the same ones, as a queue
    does, they follow each other from 0.
    """
    chunks = list(chunks)
    cache = state.new_cache()
    every = _frames(state, chunks)
    stored = dict(zip(every, state.caches[0].positions_of(every), strict=True))
    if len(set(stored.values())) < len(stored):
        stored = dict(zip(every, range(len(every)), strict=True))
    for chunk in chunks:
        frames = state.frames(chunk)
        positions = [stored[frame] for frame in frames]
        cache.begin(frames, positions)
        cache.opening = chunk == 0  # an empty cache alone opens no stream
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
    """Recompute the newest chunks in one pass that sees them all: as many as fit the frames that the policy names.

    Chunks whose latents are gone are left out, as after a policy that needs fewer; so are those of which the policy
    keeps something.
    """
    policy = state.policy
    newest = _newest(state, max(1, policy.recache_frames // state.geometry.frames_per_chunk))
    old = state.caches[0]
    cache = regrouped(old, old.heads, old.segments)
    seen = ChunkState(state.index, _frames(state, newest), cache, step="recache")
    cache.evict({name: policy.keep_mask(name, group.pages, seen) for name, group in cache.groups.items()})
    kept = set(cache.frames())
    chunks = [chunk for chunk in newest if kept.isdisjoint(state.frames(chunk))]
    if not chunks:
        return old
    frames = _frames(state, chunks)
    seen = replace(seen, frames=frames)
    positions = policy.chunk_positions(seen) or frames
    cache.begin(frames, positions)
    cache.opening = frames[0] == 0  # as in `replay`
    cache.reading.choose({name: policy.reads(name, seen) for name in cache.groups})
    latents = torch.cat([state.context_latents(chunk, state.latents[chunk]) for chunk in chunks], 1)
    state.rebuild(latents, cache, state.rope(positions))
    return evict(policy, ChunkState(state.index - 1, state.frames(state.index - 1), cache))


def _newest(state: StreamState, most: int) -> range:
    """The newest chunks, at most so many, that follow each other and whose latents are there."""
    first = state.index
    while first - 1 in state.latents and state.index - first < most:
        first -= 1
    return range(first, state.index)


def _frames(state: StreamState, chunks: Iterable[int]) -> tuple[int, ...]:
    return tuple(frame for chunk in chunks for frame in state.frames(chunk))
