"""What things take in memory, counted before they exist, and what is free.

Weights are counted. The cache is the real one, filled under the policy on the meta device. Working memory is the
largest sum of live tensors while one pass, or the decoding of one chunk, runs on the meta device.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fkv.cache import GROWTH, KVCache
from fkv.pages import Geometry
from fkv.policies import Policy
from fkv.roles import HeadRoles
from fkv.transformer.causal import CausalTransformer

from .page_tables import simulated
from .release import Base

REFERENCE = "480p"  # where decoders are counted; what they need grows with the area
SIMULATED_CHUNKS = 48  # a cache that still grows after so many chunks grows evenly from then on


@lru_cache
def transformer(base: Base) -> CausalTransformer:
    """Make the transformer of a base on the meta device."""
    from .convert import empty_model

    return CausalTransformer(empty_model(base.original))


def parameters(base: Base) -> int:
    """Count the parameters of the transformer of a base."""
    return sum(p.numel() for p in transformer(base).model.parameters())


@lru_cache
def decoder_elements(name: str, base: Base, frames: int) -> tuple[int, int, int]:
    """Count the elements (not bytes) of a decoder's tensors, at the resolution `REFERENCE`.

    Args:
        name: `vae`, or a small decoder.
        base: Whose latents it decodes.
        frames: Latent frames of a chunk.

    Returns:
        Weights, state between chunks, and the most that is alive on top of both while a chunk is decoded.
    """
    from .taehv import SmallDecoder
    from .vae import StreamingVae, random_vae, without_encoder

    is_vae = name == "vae"
    with torch.device("meta"):
        decoder: Any = (
            StreamingVae(without_encoder(random_vae(base)))
            if is_vae
            else SmallDecoder(base.channels, patch=base.codec.patch)
        )
    module = decoder.vae if is_vae else decoder
    latents = torch.empty(1, frames, base.channels, *base.latent_size(REFERENCE), device="meta")
    latents = latents if is_vae else latents[0]
    with torch.inference_mode(), Peak() as peak:
        _, state = decoder.decode(latents, None)
        decoder.decode(latents, state)
    state_elements = _elements(state)
    return _elements(module.parameters()), state_elements, peak.bytes // 4 - state_elements


def _elements(tensors: Iterable[object]) -> int:
    return sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))


@lru_cache
def pass_bytes(base: Base, resolution: str, dtype: torch.dtype, frames: int = 3) -> int:
    """Count the most bytes that are alive during a pass over a chunk of `frames`, beyond weights and cache.

    All blocks are alike, so a model of two is counted.
    """
    from .convert import empty_model

    model = empty_model(dataclasses.replace(base, layers=2).original)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    small = CausalTransformer(model)
    height, width = base.latent_size(resolution)
    geometry = small.geometry(height, width, frames)
    cache = KVCache(geometry, geometry.every_head, dtype=dtype, device="meta")
    cache.begin(tuple(range(frames)))
    freqs_cis = small.rope(range(frames), geometry.rows, geometry.cols)
    text = small.prepare_text(torch.empty(1, base.max_sequence_length, base.text_dim, device="meta"))
    small.weights_for(cache.order)
    with Peak() as peak:
        small(torch.empty(1, frames, base.channels, height, width, device="meta"), 500.0, text, cache, freqs_cis)
    return peak.bytes


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of K and V at their largest in a stream, by the names that a chunk's record has for them.

    Args:
        kv_bytes: What a chunk attends to, its own pages in every layer included.
        kv_bytes_between: What stays from one chunk to the next.
        kv_bytes_allocated: All buffers.
    """

    kv_bytes: int
    kv_bytes_between: int
    kv_bytes_allocated: int


def cache_bytes(
    geometry: Geometry,
    policy: Policy,
    heads: HeadRoles | None,
    chunks: int,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 4,
    apart: bool = True,
) -> CacheBytes:
    """Count the bytes of K and V at their largest in a stream.

    The real cache runs under `policy` on the meta device. Similarities that a policy looks at are random there: they
    decide which pages stay, not how many. A policy that classifies heads by their queries while it runs is counted as
    before that, which is an upper bound. For one that asks for attention mass (`Policy.wants_attention`), the larger of
    two extremes counts: all attention on the first frame, or all on the last one before the chunk.

    Args:
        geometry: Of the stream.
        policy: The policy.
        heads: Head roles, for policies that need them.
        chunks: Length of the stream.
        dtype: Of the model.
        steps: Denoising steps, for policies with a cache for each.
        apart: Whether chunks lie apart where the policy lets them; not in streams that share pages, nor where passes
            are captured.
    """
    looks = (0, -1) if policy.overrides("wants_attention") else (0,)
    caches = steps if policy.caches == "per-step" else 1
    counts = [astuple(_cache_bytes(geometry, policy, heads, chunks, dtype, look, apart)) for look in looks]
    return CacheBytes(*(caches * max(count) for count in zip(*counts, strict=True)))


def _cache_bytes(
    geometry: Geometry,
    policy: Policy,
    heads: HeadRoles | None,
    chunks: int,
    dtype: torch.dtype,
    look: int,
    apart: bool,
) -> CacheBytes:
    """Count `cache_bytes` of one cache, with all attention on the key frame `look`."""
    attended: list[int] = []
    kept: list[int] = []
    allocated: list[int] = []
    for state in simulated(geometry, policy, heads, min(chunks, SIMULATED_CHUNKS), dtype, look, apart):
        cache = state.cache
        if attended:
            kept.append(cache.bytes() - geometry.chunk_elements * cache.dtype.itemsize)
        attended.append(cache.bytes())
        allocated.append(cache.allocated_bytes())
    kept.append(cache.bytes())  # after the last chunk
    allocated.append(cache.allocated_bytes())
    if chunks > SIMULATED_CHUNKS and attended[-1] > attended[-2]:
        later = (attended[-1] - attended[-2]) * (chunks - len(attended))
        attended.append(attended[-1] + later)
        kept.append(kept[-1] + later)
        allocated.append(int(attended[-1] * GROWTH))
    return CacheBytes(max(attended), max(kept), max(allocated))


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are allocated inside and alive at once, on one kind of device.

    Args:
        device: The kind of device.

    Attributes:
        bytes: The most so far.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.bytes = 0
        self.alive = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {storage._cdata for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            new = storage._cdata not in inputs and storage._cdata not in self._sizes
            if storage.device.type == self.device and new:
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
    """Return the bytes free by place.

    Returns:
        `device` (for CUDA, with what PyTorch has reserved but does not use) and, for CUDA, `host`.
    """
    if str(device).startswith("cuda"):
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return {"device": torch.cuda.mem_get_info(device)[0] + unused, "host": host_memory()}
    return {"device": host_memory()}


def host_memory() -> int:
    """Return the bytes of main memory that a process may still take, within the limit of its container."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(stat["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return free
