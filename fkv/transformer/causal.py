"""diffusers' WanTransformer3DModel with a paged cache in its attention.

`CausalTransformer` keeps the library's model and its weights and runs the blocks itself (`fkv.transformer.block`): self-attention writes the
chunk's K and V to the cache and reads every head group from it; cross-attention reads the prompt's K and V, computed once.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from fkv.cache import Geometry, HeadGroup, Heads, KVCache
from fkv.kernels import (
    choose_attention,
    hybrid_attention,
    linear,
    norm_rope_store,
    one_thread_between,
    packed,
    rope_freqs_cis,
)

from .block import BlockWeights, Modulation, pre_attention, post_attention, normed
from .coordinates import input_channels, with_coordinates
from .graphs import Capture, CudaCapture, PassGraphs, check_graphs

MAX_HEAD_ORDERS, MAX_ORDER_BYTES = 4, 1_200_000_000
"""In how many head orders self-attention weights are kept, and in how many bytes, which are enough for two orders of Wan 1.3B; but in
one at least, and in two for recorded passes, which end with their weights: two streams side by side would otherwise never replay one."""
ONE_THREAD_ELEMENTS = 2**16
"""Up to how many numbers the hidden states of a pass are small, see `fkv.kernels.one_thread_between`."""
MAX_TIMESTEPS = 8
"""For how many timesteps it is kept what they ask of the blocks."""


Moved = tuple[list[Modulation], Tensor]
"""What a timestep asks of every block, and shift and scale of the last norm, [2, dim]."""


class Probe(Protocol):
    """Sees queries and keys of every head group while a pass runs; see `fkv.probe`."""

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> bool:
        """A pass begins: `step 0`, `step 1`, ... or `context`. Returns whether the probe wants to see it."""

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """query [batch, heads, chunk tokens, head_dim]; keys [batch, heads, live tokens, head_dim]; heads are the model's numbers."""


class Probes(tuple):
    """Several probes as one; none at all is falsy and costs nothing."""

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> Probes:
        """Those that want to see the pass that begins."""
        return Probes([probe for probe in self if probe.begin(chunk, frames, name)])

    def record(self, *seen: Any) -> None:
        for probe in self:
            probe.record(*seen)


NO_PROBES = Probes()


@dataclass(frozen=True)
class TextContext:
    """A prompt as cross-attention needs it: per layer K and V, [batch, heads, words, head_dim]."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]


def check_compiler() -> None:
    """Raises ValueError when the C++ compiler that `torch.compile` would call is missing."""
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if not shutil.which(compiler):
        raise ValueError(
            f"--compile needs a C++ compiler and {compiler} is not there; install it, or name another in the variable CXX"
        )


class CausalTransformer:
    """A chunk-causal, cached view of a `WanTransformer3DModel`. Several streams may share one, in several threads; recorded passes
    take turns.

    Models with more input than output channels get coordinate channels (the tiny model).
    Raises ValueError for image-to-video checkpoints, which this project does not stream, and for patches that are not square.
    """

    def __init__(self, model: WanTransformer3DModel) -> None:
        if model.config.image_dim is not None or model.config.added_kv_proj_dim is not None:
            raise ValueError("this is an image-to-video checkpoint; only text-to-video models can be streamed")
        frames, self.patch, cols = model.config.patch_size
        if frames != 1 or cols != self.patch:
            raise ValueError(
                f"patches must be squares of one latent frame, this model's are {frames} x {self.patch} x {cols}"
            )
        self.model, config = model.eval().requires_grad_(False), model.config
        self.layers, self.heads, self.head_dim = (
            config.num_layers,
            config.num_attention_heads,
            config.attention_head_dim,
        )
        self.channels, self.eps, self._pre_attention, self._post_attention = (
            config.out_channels,
            config.eps,
            pre_attention,
            post_attention,
        )
        self.coordinates = config.in_channels == input_channels(config.out_channels)
        self._lock = threading.Lock()
        self._orders: dict[Heads, list[BlockWeights]] = {}
        self._moved: dict[float, Moved] = {}
        self._graphs: PassGraphs | None = None
        if self.device.type == "cpu":
            choose_attention(self.head_dim, self.dtype)

    @property
    def device(self) -> torch.device:
        return self.model.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.blocks[0].attn1.to_q.weight.dtype

    def compile(self) -> None:
        """Have `torch.compile` fuse what lies between attention calls, where shapes stay the same while the cache grows.

        Raises ValueError like `check_compiler`.
        """
        check_compiler()
        self._pre_attention, self._post_attention = (
            torch.compile(half, fullgraph=True) for half in (pre_attention, post_attention)
        )
        self._orders.clear()

    def capture_graphs(self, capture: Capture | None = None) -> None:
        """Record passes that repeat themselves and replay them, as CUDA graphs or by another `capture`.

        Raises ValueError like `check_graphs` without another one.
        """
        if capture is None:
            check_graphs(str(self.device))
        self._graphs = PassGraphs(capture or CudaCapture())

    def geometry(self, height: int, width: int, frames_per_chunk: int, batch: int = 1) -> Geometry:
        """Cache geometry for latents of `height` x `width`."""
        return Geometry(
            self.layers, self.heads, self.head_dim, height // self.patch, width // self.patch, frames_per_chunk, batch
        )

    @torch.inference_mode()
    def prepare_text(self, embeds: Tensor) -> TextContext:
        """Cross-attention K and V of a prompt: embeds [batch, words, text_dim], zero-padded, attended without a mask."""
        expected = self.model.config.text_dim
        if embeds.dim() != 3 or embeds.shape[2] != expected:
            raise ValueError(f"text embeddings must be [batch, tokens, {expected}], not {list(embeds.shape)}")
        embeds = embeds.to(self.device, self.dtype)
        hidden = self.model.condition_embedder.text_embedder(embeds)
        pairs = []
        for block in self.model.blocks:
            attn = block.attn2
            keys, values = attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden)
            pairs.append(tuple(x.unflatten(2, (attn.heads, -1)).transpose(1, 2).contiguous() for x in (keys, values)))
        return TextContext(tuple(pairs))

    def rope(self, frames: Sequence[int], rows: int, cols: int) -> Tensor:
        """RoPE table of a chunk's tokens at absolute latent frames, complex64 [tokens, head_dim / 2]."""
        return rope_freqs_cis(frames, rows, cols, self.head_dim, self.device)

    def weights_for(self, order: Heads) -> list[BlockWeights]:
        """Weights per layer with heads in this order, made once per order; the last few are kept (`MAX_HEAD_ORDERS`)."""
        with self._lock:
            if order not in self._orders:
                size = 4 * self.layers * (self.heads * self.head_dim) ** 2 * self.dtype.itemsize
                least = 1 if self._graphs is None else 2
                while len(self._orders) >= max(least, min(MAX_HEAD_ORDERS, MAX_ORDER_BYTES // size)):
                    self._orders.pop(next(iter(self._orders)))
                stored = (
                    packed if self._pre_attention is pre_attention else lambda weight: weight
                )  # the compiler puts them in order itself
                self._orders[order] = [
                    BlockWeights.of(block, heads, stored) for block, heads in zip(self.model.blocks, order)
                ]
            return self._orders[order]

    def _modulation(self, timestep: float) -> Moved:
        """What a timestep asks; the last few are kept."""
        with self._lock:
            if timestep not in self._moved:
                if len(self._moved) >= MAX_TIMESTEPS:
                    self._moved.pop(next(iter(self._moved)))
                no_words = torch.zeros(1, 1, self.model.config.text_dim, device=self.device, dtype=self.dtype)
                embedded, projected, *_ = self.model.condition_embedder(
                    torch.tensor([timestep], device=self.device), no_words
                )
                projected = projected.unflatten(1, (6, -1))
                blocks = [Modulation.of(block.scale_shift_table, projected) for block in self.model.blocks]
                self._moved[timestep] = blocks, (self.model.scale_shift_table + embedded).float()[0]
            return self._moved[timestep]

    def _attend(
        self, layer: int, qkv: Tensor, own: BlockWeights, cache: KVCache, table: Tensor, probes: Probes
    ) -> Tensor:
        """Write the chunk to the cache, attend to every head group's live pages: [batch, tokens, 3 dim] -> [batch, tokens, dim]."""
        query = norm_rope_store(qkv, own.qk_norm_weight, self.eps, table, cache.targets(layer))
        groups = cache.read(layer)
        out = hybrid_attention(query, [(keys, values) for _, _, keys, values in groups])
        if probes:
            for group, heads, keys, _ in groups:
                probes.record(layer, group, group.heads[layer], query[:, heads], keys, cache)
        return out.transpose(1, 2).flatten(2)

    @torch.inference_mode()
    def __call__(
        self,
        latents: Tensor,
        timestep: float,
        text: TextContext,
        cache: KVCache,
        table: Tensor,
        probes: Probes = NO_PROBES,
    ) -> Tensor:
        """One pass over the current chunk: latents [B, 3, C, h, w] at `timestep` (0 to 1000) -> flow of the same shape.

        Writes the chunk's K and V to the pages that `cache.begin` reserved.
        """
        moved, weights = self._modulation(timestep), self.weights_for(cache.order)

        def work(latents: Tensor, table: Tensor) -> Tensor:
            with one_thread_between() if self._is_small(len(table) * len(latents)) else nullcontext():
                return self._flow(latents, moved, weights, text, cache, table, probes)

        given = latents.to(self.device), table
        if self._graphs is None or probes:
            return work(*given)
        with self._lock:
            return self._graphs.run(work, given, timestep, cache, (moved, weights, text))

    def _is_small(self, tokens: int) -> bool:
        """Whether what lies between products and attention is too little for several threads of a processor; in float32 (in bfloat16
        chunks took a tenth longer so) and not compiled, since the compiler's loops have their number of threads built in."""
        small = tokens * self.heads * self.head_dim <= ONE_THREAD_ELEMENTS
        return (
            small and self.device.type == "cpu" and self.dtype == torch.float32 and self._pre_attention is pre_attention
        )

    def _flow(
        self,
        latents: Tensor,
        moved: Moved,
        weights: Sequence[BlockWeights],
        text: TextContext,
        cache: KVCache,
        table: Tensor,
        probes: Probes,
    ) -> Tensor:
        model, (blocks, (shift, scale)) = self.model, moved
        given = latents.to(self.dtype).transpose(1, 2)
        given = with_coordinates(given, given.shape[2], cache.opening) if self.coordinates else given
        patches = pixel_unshuffle(given.transpose(1, 2), self.patch).permute(
            0, 1, 3, 4, 2
        )  # [B, F, rows, cols, pixels of a patch]
        embedding = model.patch_embedding
        hidden = linear(patches.flatten(1, 3), embedding.weight.flatten(1), embedding.bias).float()
        for layer, (own, moved) in enumerate(zip(weights, blocks)):
            attended = self._attend(layer, self._pre_attention(hidden, own, moved, self.eps), own, cache, table, probes)
            hidden = self._post_attention(hidden, attended, own, moved, self.eps, *text.keys_values[layer])
        flow = linear(
            normed(hidden, 1 + scale, shift, self.eps, self.dtype), model.proj_out.weight, model.proj_out.bias
        )
        flow = (
            flow.unflatten(2, (self.patch, self.patch, -1))
            .unflatten(1, patches.shape[1:4])
            .permute(0, 1, 6, 2, 4, 3, 5)
        )
        return flow.flatten(5).flatten(3, 4).to(latents.dtype)
