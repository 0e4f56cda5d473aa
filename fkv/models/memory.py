"""What things take in memory, counted before they exist, and what is free.

Weights are counted, the cache is the policy's own page table filled on the meta device, and working memory is the
largest sum of live tensors while one pass, or the decoding of one chunk, runs on the meta device.
"""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fkv.cache import GROWTH, Geometry, KVCache
from fkv.policies import ChunkState, Policy, evict
from fkv.roles import HeadRoles
from fkv.transformer.causal import CausalTransformer

from .convert import empty_model
from .release import RESOLUTIONS, Base
from .taehv import SmallDecoder
from .vae import StreamingVae, without_encoder

REFERENCE = RESOLUTIONS["480p"]
"""The size at which a decoder is counted; what it needs grows with the area."""
SIMULATED_CHUNKS = 48
"""A cache that still grows after so many chunks grows evenly from then on."""


@lru_cache
def transformer(base: Base) -> CausalTransformer:
    return CausalTransformer(empty_model(base.original))


def parameters(base: Base) -> int:
    """Parameters of the transformer, counted on the meta device."""
    return sum(p.numel() for p in transformer(base).model.parameters())


@lru_cache
def decoder_elements(name: str) -> tuple[int, int, int]:
    """Elements, not bytes: weights, state between chunks, and the most alive on top of both while a chunk is decoded."""
    with torch.device("meta"):
        decoder = StreamingVae(without_encoder(AutoencoderKLWan())) if name == "vae" else SmallDecoder()
    module = decoder.vae if name == "vae" else decoder
    latents = torch.empty(1, 3, 16, *REFERENCE, device="meta")
    with torch.inference_mode(), Peak() as peak:
        _, state = decoder.decode(latents if name == "vae" else latents[0], None)
        decoder.decode(latents if name == "vae" else latents[0], state)
    held = _elements(state)
    return _elements(module.parameters()), held, peak.bytes // 4 - held


def _elements(tensors: Iterable[object]) -> int:
    return sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))


@lru_cache
def pass_bytes(base: Base, resolution: str, dtype: torch.dtype) -> int:
    """The most that is alive during a pass, beyond weights and cache. All blocks are alike, so two of them tell."""
    model = empty_model(dataclasses.replace(base, layers=2).original)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    small = CausalTransformer(model)
    height, width = RESOLUTIONS[resolution]
    geometry = small.geometry(height, width, 3)
    cache = KVCache(geometry, geometry.every_head, dtype=dtype, device="meta")
    cache.begin((0, 1, 2))
    table = small.rope((0, 1, 2), geometry.rows, geometry.cols)
    text = small.prepare_text(torch.empty(1, base.max_sequence_length, base.text_dim, device="meta"))
    small.weights_for(cache.order)
    with Peak() as peak:
        small(torch.empty(1, 3, base.channels, height, width, device="meta"), 500.0, text, cache, table)
    return peak.bytes


def kv_bytes(
    geometry: Geometry,
    policy: Policy,
    heads: HeadRoles | None,
    chunks: int,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 4,
) -> int:
    """Bytes of K and V buffers at their most in a stream of `chunks` chunks: the real cache, run under `policy` on the meta device.

    Similarities that a policy would look at are random: they decide which pages stay, not how many. For a policy that
        classes
    heads by their attention, the larger of two extremes: all of it on the first frame, or all on the last one before
        the chunk.
    """
    looks = (0, -1) if policy.watches_attention else (0,)
    return max(_kv_bytes(geometry, policy, heads, chunks, dtype, look) for look in looks) * (
        steps if policy.caches == "per-step" else 1
    )


def _kv_bytes(
    geometry: Geometry, policy: Policy, heads: HeadRoles | None, chunks: int, dtype: torch.dtype, look: int
) -> int:
    cache = _Sizes(
        geometry, policy.groups(geometry, heads) or geometry.every_head, policy.segments, policy.stored(dtype), "meta"
    )
    held, buffers = [], []
    for chunk in range(min(chunks, SIMULATED_CHUNKS)):
        frames = tuple(range(chunk * geometry.frames_per_chunk, (chunk + 1) * geometry.frames_per_chunk))
        cache.begin(frames)
        held.append(cache.bytes()), buffers.append(cache.allocated_bytes())
        state = ChunkState(chunk, frames, cache)
        if policy.wants_attention(chunk, cache):
            earlier = tuple(cache.frames())
            mass = np.zeros((geometry.layers, geometry.heads, len(frames), len(earlier)))
            mass[..., 0 if look == 0 else -len(frames) - 1] = 1
            state = dataclasses.replace(state, mass=mass, key_frames=earlier)
        cache = evict(policy, state)
    growth = held[-1] - held[-2] if chunks > SIMULATED_CHUNKS else 0
    return max(*buffers, int((held[-1] + growth * (chunks - len(held))) * GROWTH) if growth else 0)


class _Sizes(KVCache):
    """A cache of which only the page tables count: on the meta device, with keys of its own where a policy asks for them."""

    def keys_of(self, layer: int, name: str, frames: Sequence[int]) -> Tensor:
        return torch.randn(
            1, 1, len(frames), self.geometry.tokens_per_frame, 2, generator=torch.Generator().manual_seed(0)
        )


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and alive at once, on one kind of device. `bytes`: the most so far."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.bytes, self.alive = device, 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage.device.type == self.device and storage._cdata not in given and storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self.alive += storage.nbytes()
                self.bytes = max(self.bytes, self.alive)
                weakref.finalize(storage, self._gone, storage._cdata)
        return out

    def _gone(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
        elif isinstance(leaf, torch.UntypedStorage):
            yield leaf


def free_memory(device: str) -> dict[str, int]:
    """Bytes free by place: `device`, what PyTorch holds without using it included, and `host` for CUDA, `device` alone for a CPU."""
    if str(device).startswith("cuda"):
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return {"device": torch.cuda.mem_get_info(device)[0] + held, "host": host_memory()}
    return {"device": host_memory()}


def host_memory() -> int:
    """Bytes of main memory that a process may still take: what the machine has, within the limit of its container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return free
