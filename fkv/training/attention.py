"""Attention for training: all chunks of a clip at once, each noisy chunk sees the clean chunks before it and itself.

The batch holds one clean copy of the clips, then one or more noisy ones. `Context` says which clean tokens each chunk
and head group may look at, so that training meets the caches that streaming will use.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fkv.kernels import apply_rope

from .history import CHUNK_FRAMES, SEGMENTS, History


@dataclass
class Context:
    """Which earlier tokens each chunk of a training batch attends to.

    Attributes:
        table: RoPE table of the clip's tokens.
        copies: Copies of the clips in the batch, the clean one and the noisy ones.
        chunks: Chunks per clip.
        chunk_tokens: Tokens per chunk.
        local: Per chunk, indices of the clean tokens that the local-prior heads see, int64 [n].
        wide: Likewise for the other heads.
        restricted: Per layer, whether its local-prior heads see `local` only.
    """

    table: Tensor
    copies: int
    chunks: int
    chunk_tokens: int
    local: list[Tensor]
    wide: list[Tensor]
    restricted: list[bool]


def draw_context(
    rng: random.Random, table: Tensor, copies: int, history: History, tokens_per_frame: int, layers: int
) -> Context:
    """Draw which tokens of a clip's history its chunks see in one step.

    Args:
        rng: Source of randomness.
        table: RoPE table of the clip's tokens.
        copies: Copies of the clips in the batch.
        history: What the chunks see of earlier ones.
        tokens_per_frame: Tokens of one latent frame.
        layers: Layers of the transformer.
    """
    segment = tokens_per_frame // SEGMENTS
    chunks = len(history.chunks)

    def tokens(frames: Sequence[int], segments: Sequence[tuple[int, int]] = ()) -> Tensor:
        found = [frame * tokens_per_frame + i for frame in frames for i in range(tokens_per_frame)]
        found += [frame * tokens_per_frame + part * segment + i for frame, part in segments for i in range(segment)]
        return torch.tensor(sorted(found), dtype=torch.int64, device=table.device)

    local = [tokens(history.static_frames(i)) for i in range(chunks)]
    wide = [tokens(history.frames(i), history.segments(i, rng)) for i in range(chunks)]
    restricted = [history.local_prior and layer > 0 and rng.random() < 0.5 for layer in range(layers)]
    return Context(table, copies, chunks, CHUNK_FRAMES * tokens_per_frame, local, wide, restricted)


class TeacherForcedAttention:
    """Self-attention processor. The first half of each layer's heads are the local-prior heads."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.context: Context | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
    ) -> Tensor:
        c = self.context
        if c is None:
            raise ValueError("set `context` before the forward pass")
        heads = attn.heads
        q = attn.norm_q(attn.to_q(hidden_states))
        k = attn.norm_k(attn.to_k(hidden_states))
        v = attn.to_v(hidden_states)
        q, k, v = (x.unflatten(2, (heads, -1)) for x in (q, k, v))
        q, k = apply_rope(q, c.table), apply_rope(k, c.table)
        q, k, v = (x.to(v.dtype).unflatten(0, (c.copies, -1)).transpose(2, 3).contiguous() for x in (q, k, v))
        restricted = c.restricted[self.layer]
        sizes = [heads // 2, heads - heads // 2] if restricted else [heads]
        tokens = [c.local, c.wide] if restricted else [c.wide]
        by_heads = zip(q.split(sizes, 2), k.split(sizes, 2), v.split(sizes, 2), tokens, strict=True)
        out = torch.cat([_attend(*group, c.chunk_tokens) for group in by_heads], 2)
        return attn.to_out[0](out.transpose(2, 3).flatten(0, 1).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, tokens: Sequence[Tensor], chunk_tokens: int) -> Tensor:
    """Attention of every chunk to itself and to its `tokens` of the clean copy, the first of the batch.

    q, k and v are [copies, batch, heads, chunks * chunk_tokens, head_dim]. Plain products train faster than torch's CPU
    attention, and splits faster than slices, whose gradients are as large as the tensor.
    """
    clean_k, clean_v = k[:1], v[:1]

    def visible(clean: Tensor, current: Tensor, past: Tensor) -> Tensor:
        return torch.cat([clean.index_select(3, past).expand(current.shape[0], -1, -1, -1, -1), current], 3)

    attended: list[Tensor] = []
    chunks = (x.split(chunk_tokens, 3) for x in (q * q.shape[-1] ** -0.5, k, v))
    for query, key, value, past in zip(*chunks, tokens, strict=True):
        scores = query @ visible(clean_k, key, past).transpose(-1, -2)
        attended.append(scores.softmax(-1) @ visible(clean_v, value, past))
    return torch.cat(attended, 3)


class ChunkTextAttention:
    """Cross-attention processor: every chunk reads its own prompt.

    `encoder_hidden_states` is [batch * chunks, words, dim].
    """

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
    ) -> Tensor:
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(1, (self.chunks, -1)).flatten(0, 1)
        k = attn.norm_k(attn.to_k(encoder_hidden_states))
        v = attn.to_v(encoder_hidden_states)
        q, k, v = (x.to(v.dtype).unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        copies = q.shape[0] // k.shape[0]
        k, v = (x.repeat(copies, 1, 1, 1) for x in (k, v))
        out = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
        out = out.transpose(1, 2).flatten(2).unflatten(0, (-1, self.chunks)).flatten(1, 2)
        return attn.to_out[0](out)
