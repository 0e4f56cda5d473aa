"""A policy on page tables alone: what it holds and reads, counted without generating anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.pages import Geometry
from fkv.policies import ChunkState, PassReads, Policy, evict, page_kinds
from fkv.roles import HeadRoles


def simulated(
    geometry: Geometry,
    policy: Policy,
    roles: HeadRoles | None,
    chunks: int,
    dtype: torch.dtype,
    look: int = 0,
    apart: bool = True,
) -> Iterator[ChunkState]:
    """Run the real cache under a policy on the meta device.

    Similarities that a policy looks at are random: they decide which pages stay, not how many.

    Args:
        geometry: Of the stream.
        policy: The policy.
        roles: Head roles, for policies that need them.
        chunks: Length of the stream.
        dtype: Of the model.
        look: Key frame with all attention, for policies that ask for its mass: 0, or -1 for the last before the chunk.
        apart: Whether chunks lie apart where the policy lets them.

    Yields:
        Every chunk while it attends.
    """
    groups = policy.groups(geometry, roles) or geometry.every_head
    cache: KVCache = PageTableCache(geometry, groups, policy.segments_of(geometry), policy.stored(dtype), "meta")
    text_keys = [torch.zeros(1, geometry.heads, 1, 2)] * geometry.layers
    for chunk in range(chunks):
        frames = tuple(range(chunk * geometry.frames_per_chunk, (chunk + 1) * geometry.frames_per_chunk))
        state = ChunkState(chunk, frames, cache, text_keys=text_keys)
        cache.begin(frames, policy.chunk_positions(state), apart and policy.apart(geometry))
        yield state
        if policy.wants_attention(chunk, cache):
            earlier = tuple(cache.frames())
            mass = np.zeros((geometry.layers, geometry.heads, len(frames), len(earlier)))
            mass[..., 0 if look == 0 else -len(frames) - 1] = 1
            state = replace(state, mass=mass, key_frames=earlier)
        cache = evict(policy, state)


class PageTableCache(KVCache):
    """A cache whose page tables alone count: on the meta device, with random keys where a policy asks for them.

    Attributes:
        contents_seen: Whether a policy has asked for the content of pages.
    """

    contents_seen = False

    def unrotated(self, layer: int, name: str, index: np.ndarray) -> tuple[Tensor, Tensor]:
        self.contents_seen = True
        contents = torch.zeros(1, 1, len(index), self.page_tokens, 1)  # one element per token is as good as all
        return contents, contents

    def edit(self, layer: int, name: str, index: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Mark the pages; contents do not count."""
        group = self.groups[name]
        group.edited[group.pages.slot[index]] = True

    def keys_of(self, layer: int, name: str, frames: Sequence[int]) -> Tensor:
        self.contents_seen = True
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, 1, len(frames), self.geometry.tokens_per_frame, 2, generator=generator)


@dataclass(frozen=True)
class ReadTables:
    """Page tables of a chunk in its last denoising pass.

    Args:
        state: The chunk while it attends, with its cache.
        reads: What the pass reads, and what the pages are for.
    """

    state: ChunkState
    reads: PassReads


def read_tables(
    geometry: Geometry, policy: Policy, roles: HeadRoles | None, chunks: int, dtype: torch.dtype, steps: int
) -> ReadTables:
    """The page tables of the last chunk of a stream, for policies that do not watch attention.

    Args:
        geometry: Of the stream.
        policy: The policy.
        roles: Head roles, for policies that need them.
        chunks: Length of the stream.
        dtype: Of the model.
        steps: Denoising steps.

    Raises:
        ValueError: The policy does not fit the model, or what it keeps depends on what the video shows.
    """
    if policy.watches_attention:
        raise ValueError(f"what {policy.name!r} keeps depends on what the video shows")
    for state in simulated(geometry, policy, roles, chunks, dtype):
        groups = state.cache.groups
        for step in range(steps):
            reads = {name: policy.reads(name, replace(state, step=f"step {step}")) for name in groups}
        if state.chunk == chunks - 1:
            break
        for name in groups:
            policy.reads(name, replace(state, step="context"))  # for what it notes
    chosen = {name: each for name, each in reads.items() if each is not None}
    cached = {name: group.pages for name, group in groups.items()}
    return ReadTables(state, PassReads.of(chosen, cached, page_kinds(policy, state)))


@dataclass(frozen=True)
class Footprint:
    """What a policy holds and reads while a chunk attends, the chunk's own frames included.

    Args:
        chunks: Length of the stream.
        frames: Latent frames that are held, on average over heads.
        bytes: Of K and V.
        denoise: Latent frames that the first denoising pass reads, on average over heads.
        context: The same of the context pass; None where there is none.

    Both readings are those of all that is held where the choice depends on what the video shows.
    """

    chunks: int
    frames: float
    bytes: int
    denoise: float
    context: float | None


def footprint(
    geometry: Geometry, policy: Policy, roles: HeadRoles | None, chunks: int, dtype: torch.dtype, steps: int = 4
) -> Footprint:
    """Count what a policy holds and reads in the last chunk of a stream; arguments as of `simulated`.

    Args:
        steps: Denoising steps, for policies with a cache for each.

    Raises:
        ValueError: The policy does not fit the model.
    """
    stream = simulated(geometry, policy, roles, chunks, dtype)
    state = next(state for state in stream if state.chunk == chunks - 1)  # before the chunk's eviction
    per_step = policy.caches == "per-step"
    return Footprint(
        chunks,
        _frames(state, {name: len(group.pages) for name, group in state.cache.groups.items()}),
        state.cache.bytes() * (steps if per_step else 1),
        _frames(state, _read(policy, replace(state, step="step 0"))),
        None if per_step else _frames(state, _read(policy, replace(state, step="context"))),
    )


def _read(policy: Policy, state: ChunkState) -> dict[str, int]:
    """Pages that a pass reads of each group."""
    counts = {}
    for name, group in state.cache.groups.items():
        reads = policy.reads(name, state)
        counts[name] = len(group.pages) if reads is None else len(reads.index)
    return counts


def _frames(state: ChunkState, pages: dict[str, int]) -> float:
    """Latent frames per head, from the pages of each group."""
    heads = {name: sum(map(len, group.heads)) for name, group in state.cache.groups.items()}
    total = sum(heads.values()) * state.cache.segments
    return sum(heads[name] * count for name, count in pages.items()) / total
