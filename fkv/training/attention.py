"""Attention for training: all chunks of a clip at once, each noisy chunk sees the clean chunks before it and itself.

The batch holds one clean copy of the clips, then one or more noisy ones. `Context` says which clean tokens each chunk
and head group may look at, so that training meets the caches that streaming will use.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from fkv.kernels import apply_rope


@dataclass
class Context:
    """What the clips of one step look like to attention.

    table : RoPE of the clip's tokens. copies : clean + noisy ones. chunks, chunk_tokens : of a clip.
    local, wide : per chunk, indices of the clean tokens that the local-prior heads and the others see.
    restricted : per layer, whether its local-prior heads are held to `local` in this step.
    """

    table: Tensor
    copies: int
    chunks: int
    chunk_tokens: int
    local: list[Tensor]
    wide: list[Tensor]
    restricted: list[bool]


def draw_context(
    rng: random.Random, table: Tensor, copies: int, chunks: int, tokens_per_frame: int, layers: int
) -> Context:
    """A context as some cache would leave it: everything, sink + window, or sink + anchor + a third of the last segments."""
    mode = rng.choice(("full", "full", "window", "hybrid"))
    segment = tokens_per_frame // 6
    local, wide = [], []
    for chunk in range(chunks):
        frames = [] if chunk == 0 else sorted({0, 3 * chunk - 1})
        local.append(
            torch.tensor([f * tokens_per_frame + i for f in frames for i in range(tokens_per_frame)], dtype=torch.int64)
        )
        if mode == "full":
            tokens = list(range(3 * chunk * tokens_per_frame))
        elif mode == "window":
            frames = sorted({0, *range(max(0, 3 * chunk - 5), 3 * chunk)}) if chunk else []
            tokens = [f * tokens_per_frame + i for f in frames for i in range(tokens_per_frame)]
        else:
            recent = [s for f in range(max(1, 3 * chunk - 4), max(1, 3 * chunk - 1)) for s in range(6 * f, 6 * f + 6)]
            kept = rng.sample(recent, min(6, len(recent)))
            tokens = local[-1].tolist() + [s * segment + i for s in kept for i in range(segment)]
        wide.append(torch.tensor(sorted(tokens), dtype=torch.int64))
    restricted = [layer > 0 and rng.random() < 0.5 for layer in range(layers)]
    return Context(table, copies, chunks, 3 * tokens_per_frame, local, wide, restricted)


class TeacherForcedAttention:
    """Self-attention processor. The first half of each layer's heads are the local-prior heads."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.context: Context | None = None

    def __call__(
        self, attn, hidden_states: Tensor, encoder_hidden_states=None, attention_mask=None, rotary_emb=None
    ) -> Tensor:
        c, heads = self.context, attn.heads
        q, k, v = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states)), attn.to_v(hidden_states)
        q, k, v = (x.unflatten(2, (heads, -1)) for x in (q, k, v))
        q, k = apply_rope(q, c.table), apply_rope(k, c.table)
        q, k, v = (x.to(v.dtype).unflatten(0, (c.copies, -1)).transpose(2, 3).contiguous() for x in (q, k, v))
        half = heads // 2
        groups = (
            [(slice(0, half), c.local), (slice(half, heads), c.wide)]
            if c.restricted[self.layer]
            else [(slice(0, heads), c.wide)]
        )
        out = [torch.cat([self._attend(q, k, v, h, i, tokens[i]) for h, tokens in groups], 2) for i in range(c.chunks)]
        out = torch.cat(out, 3).transpose(2, 3).flatten(0, 1).flatten(2)
        return attn.to_out[0](out)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: slice, chunk: int, tokens: Tensor) -> Tensor:
        span = slice(chunk * self.context.chunk_tokens, (chunk + 1) * self.context.chunk_tokens)

        def seen(x: Tensor) -> Tensor:
            own = x[:, :, heads, span]
            past = x[:1, :, heads].index_select(3, tokens.to(x.device))
            return torch.cat([past.expand(own.shape[0], -1, -1, -1, -1), own], 3)

        scores = (q[:, :, heads, span] * q.shape[-1] ** -0.5) @ seen(k).transpose(-1, -2)
        return scores.softmax(-1) @ seen(v)


class ChunkTextAttention:
    """Cross-attention processor: every chunk reads its own prompt, `encoder_hidden_states` [batch * chunks, words, dim]."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks

    def __call__(
        self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask=None, rotary_emb=None
    ) -> Tensor:
        q = attn.norm_q(attn.to_q(hidden_states)).unflatten(1, (self.chunks, -1)).flatten(0, 1)
        k, v = attn.norm_k(attn.to_k(encoder_hidden_states)), attn.to_v(encoder_hidden_states)
        q, k, v = (x.to(v.dtype).unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        copies = q.shape[0] // k.shape[0]
        k, v = (x.repeat(copies, 1, 1, 1) for x in (k, v))
        out = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
        out = out.transpose(1, 2).flatten(2).unflatten(0, (-1, self.chunks)).flatten(1, 2)
        return attn.to_out[0](out)
