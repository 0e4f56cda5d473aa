"""diffusers' WanTransformer3DModel with a paged cache in its attention.

`CausalTransformer` keeps the library's model and replaces two processors per block: self-attention writes the chunk's
K and V to the cache and reads every head group from it; cross-attention reads the prompt's K and V, computed once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import hybrid_attention, norm_rope_store, rope_table

from .cache import Geometry, HeadGroup, Heads, KVCache
from .models.coordinates import input_channels, with_coordinates

HEAD_ORDERS, ORDER_BYTES = 4, 1 << 30
"""In how many head orders self-attention weights are kept, and in how many bytes, but in one at least."""


class Probe(Protocol):
    """Sees queries and keys of every head group while a pass runs; see `fkv.probe`."""

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> None:
        """A pass begins: `step 0`, `step 1`, ... or `context`."""

    def record(self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache) -> None:
        """query [batch, heads, chunk tokens, head_dim]; keys [batch, heads, live tokens, head_dim]; heads are the model's numbers."""


class Probes(tuple):
    """Several probes as one; none at all is falsy and costs nothing."""

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> None:
        for probe in self:
            probe.begin(chunk, frames, name)

    def record(self, *seen: Any) -> None:
        for probe in self:
            probe.record(*seen)


NO_PROBES = Probes()


@dataclass(frozen=True)
class TextContext:
    """A prompt as cross-attention needs it: per layer K and V, [batch, heads, words, head_dim]."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    stub: Tensor


@dataclass(frozen=True)
class HeadOrderWeights:
    """Self-attention weights of one layer with q, k, v fused and heads in cache order, so that head groups are views."""

    qkv: Tensor
    qkv_bias: Tensor
    gain_q: Tensor
    gain_k: Tensor
    out: Tensor
    out_bias: Tensor
    eps: float

    @classmethod
    def of(cls, attn: nn.Module, order: Sequence[int]) -> HeadOrderWeights:
        size = attn.inner_dim // attn.heads
        rows = torch.cat([torch.arange(h * size, (h + 1) * size) for h in order]).to(attn.to_q.weight.device)
        parts = (attn.to_q, attn.to_k, attn.to_v)
        return cls(
            torch.cat([p.weight[rows] for p in parts]), torch.cat([p.bias[rows] for p in parts]),
            attn.norm_q.weight[rows], attn.norm_k.weight[rows],
            attn.to_out[0].weight[:, rows].contiguous(), attn.to_out[0].bias, attn.norm_q.eps,
        )  # fmt: skip


class _SelfAttention:
    """Processor of `attn1`: write the chunk to the cache, attend to every head group's live pages."""

    def __init__(self, owner: CausalTransformer, layer: int) -> None:
        self.owner, self.layer = owner, layer

    def __call__(self, attn, hidden_states: Tensor, encoder_hidden_states=None, attention_mask=None, rotary_emb=None) -> Tensor:
        owner, cache, weights = self.owner, self.owner.cache, self.owner.weights[self.layer]
        qkv = F.linear(hidden_states, weights.qkv, weights.qkv_bias)
        targets = cache.targets(self.layer)
        query = norm_rope_store(qkv, weights.gain_q, weights.gain_k, weights.eps, owner.table, targets)
        groups = list(cache.read(self.layer))
        out = hybrid_attention(query, [(keys, values) for _, _, keys, values in groups])
        if owner.probes:
            for group, heads, keys, _ in groups:
                owner.probes.record(self.layer, group, group.heads[self.layer], query[:, heads], keys, cache)
        return F.linear(out.transpose(1, 2).flatten(2), weights.out, weights.out_bias)


class _TextAttention:
    """Processor of `attn2`: attend to the prompt's stored K and V."""

    def __init__(self, owner: CausalTransformer, layer: int) -> None:
        self.owner, self.layer = owner, layer

    def __call__(self, attn, hidden_states: Tensor, encoder_hidden_states=None, attention_mask=None, rotary_emb=None) -> Tensor:
        keys, values = self.owner.text.keys_values[self.layer]
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, keys, values)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


class _StoredRotation(nn.Module):
    """Stands in for the model's own RoPE, which knows no frame offset; the processors read the table themselves."""

    def forward(self, hidden_states: Tensor) -> None:
        return None


class CausalTransformer:
    """A chunk-causal, cached view of a `WanTransformer3DModel`. Several streams may share one; passes take turns.

    Models with more input than output channels get coordinate channels (the tiny model).
    Raises ValueError for image-to-video checkpoints, which this project does not stream.
    """

    def __init__(self, model: WanTransformer3DModel) -> None:
        if model.config.image_dim is not None or model.config.added_kv_proj_dim is not None:
            raise ValueError("this is an image-to-video checkpoint; only text-to-video models can be streamed")
        self.model = model.eval().requires_grad_(False)
        self.model.rope = _StoredRotation()
        for layer, block in enumerate(model.blocks):
            block.attn1.set_processor(_SelfAttention(self, layer))
            block.attn2.set_processor(_TextAttention(self, layer))
        config = model.config
        self.layers, self.heads, self.head_dim = config.num_layers, config.num_attention_heads, config.attention_head_dim
        self.channels, self.patch = config.out_channels, config.patch_size[1:]
        self.coordinates = config.in_channels == input_channels(config.out_channels)
        self.lock = threading.Lock()
        self._orders: dict[Heads, list[HeadOrderWeights]] = {}

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.blocks[0].attn1.to_q.weight.dtype

    def geometry(self, height: int, width: int, frames_per_chunk: int, batch: int = 1) -> Geometry:
        """Cache geometry for latents of `height` x `width`."""
        return Geometry(self.layers, self.heads, self.head_dim, height // self.patch[0], width // self.patch[1], frames_per_chunk, batch)

    @torch.inference_mode()
    def prepare_text(self, embeds: Tensor) -> TextContext:
        """Cross-attention K and V of a prompt: embeds [batch, words, text_dim], zero-padded, attended without a mask."""
        embeds = embeds.to(self.device, self.dtype)
        hidden = self.model.condition_embedder.text_embedder(embeds)
        pairs = []
        for block in self.model.blocks:
            attn = block.attn2
            keys, values = attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden)
            pairs.append(tuple(x.unflatten(2, (attn.heads, -1)).transpose(1, 2).contiguous() for x in (keys, values)))
        return TextContext(tuple(pairs), embeds[:, :1])

    def rope(self, frames: Sequence[int], rows: int, cols: int) -> Tensor:
        """RoPE table of a chunk's tokens at absolute latent frames, complex64 [tokens, head_dim / 2]."""
        return rope_table(frames, rows, cols, self.head_dim).to(self.device)

    def weights_for(self, order: Heads) -> list[HeadOrderWeights]:
        """Self-attention weights per layer in this head order, made once per order; the last few are kept (`HEAD_ORDERS`)."""
        if order not in self._orders:
            size = 4 * self.layers * (self.heads * self.head_dim) ** 2 * self.dtype.itemsize
            while len(self._orders) >= max(1, min(HEAD_ORDERS, ORDER_BYTES // size)):
                self._orders.pop(next(iter(self._orders)))
            self._orders[order] = [HeadOrderWeights.of(b.attn1, heads) for b, heads in zip(self.model.blocks, order)]
        return self._orders[order]

    @torch.inference_mode()
    def __call__(
        self, latents: Tensor, timestep: float, text: TextContext, cache: KVCache, table: Tensor, probes: Probes = NO_PROBES
    ) -> Tensor:
        """One pass over the current chunk: latents [B, 3, C, h, w] at `timestep` (0 to 1000) -> flow of the same shape.

        Writes the chunk's K and V to the pages that `cache.begin` reserved.
        """
        hidden = latents.to(self.device, self.dtype).transpose(1, 2)
        hidden = with_coordinates(hidden, hidden.shape[2], cache.opening) if self.coordinates else hidden
        steps = torch.full((latents.shape[0],), timestep, device=self.device, dtype=torch.float32)
        with self.lock:
            self.cache, self.text, self.table, self.probes = cache, text, table, probes
            self.weights = self.weights_for(cache.order)
            try:
                flow = self.model(hidden, steps, text.stub, return_dict=False)[0]
            finally:
                self.cache = self.text = self.table = self.probes = None
        return flow.transpose(1, 2).to(latents.dtype)
