"""Attention of heads that all hold the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import fastest
from .onednn import float32_by_onednn, multiplies_float32

SCORES_PER_BLOCK = 2**20
"""How many scores are held at once: 4 MB, which stay in a processor's cache."""
MAX_QUERY_ROWS = 384
MIN_SCORES = 2**18
"""Scores, of all heads and queries, below which products are not worth their many calls."""
SDPA_MARGIN = 1.5
"""How many times as fast PyTorch's own way must be to be taken instead of `attention_bmm`: more than a busy machine makes of nothing. The
two round differently, and the same link shall show the same frames tomorrow."""


def token_major(query: Tensor) -> Tensor:
    """An empty tensor like query, stored token by token, so that `.transpose(1, 2).flatten(2)` copies nothing."""
    batch, heads, tokens, size = query.shape
    return query.new_empty(batch, tokens, heads, size).transpose(1, 2)


def attention_bmm(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """`attention` as two products of oneDNN in float32 and a softmax between them, for some heads and queries at a time."""
    heads, tokens, size = query.shape[1:]
    held = keys.shape[2]
    rows = min(tokens, MAX_QUERY_ROWS, max(SCORES_PER_BLOCK // held, MAX_QUERY_ROWS // 2))
    group = max(SCORES_PER_BLOCK // (rows * held), 1)
    scores, out = torch.empty(min(group, heads), rows, held), token_major(query) if out is None else out
    with float32_by_onednn():
        for batch in range(len(query)):
            for own in (slice(first, first + group) for first in range(0, heads, group)):
                q, k, v = (
                    query[batch, own].float(),
                    keys[batch, own].float().transpose(1, 2),
                    values[batch, own].float(),
                )
                for part in (slice(first, first + rows) for first in range(0, tokens, rows)):
                    of = q[:, part]
                    weights = scores[: len(of), : of.shape[1]]
                    torch.baddbmm(weights, of, k, beta=0, alpha=size**-0.5, out=weights)
                    torch.softmax(weights, 2, out=weights)
                    out[batch, own, part] = torch.bmm(weights, v)
    return out


def attention_sdpa(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """`attention` as PyTorch computes it."""
    made = F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype))
    return made if out is None else out.copy_(made)


@lru_cache
def _backend_for(size: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Which of the two to take on this machine for heads of this size, tried on some of a chunk of the tiny model."""
    if dtype not in (torch.bfloat16, torch.float32) or not multiplies_float32():
        return attention_sdpa
    keys = torch.linspace(-3, 3, 2 * 768 * size).to(dtype).view(1, 2, 768, size)
    query, ways = keys[:, :, :192], {"torch": attention_sdpa, "products": attention_bmm}
    return ways[
        fastest(
            "attention",
            (query, keys),
            {name: partial(way, query, keys, keys) for name, way in ways.items()},
            SDPA_MARGIN,
        )
    ]


def choose_attention(size: int, dtype: torch.dtype) -> None:
    """Find out now how a CPU attends to many keys by heads of this size, rather than in the middle of the first stream."""
    _backend_for(size, dtype)


def attention(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: [batch, heads, tokens, head_dim] and keys and values [batch, heads, their tokens, head_dim], of
    query's type or in 8 bits -> query's shape and type, in `out` if it is given. No gradients.

    On a CPU, where there are many scores, one of two ways, found out once (`dispatch.fastest`): PyTorch's own, or products in float32 with
    a softmax between. On two cores of AMD EPYCs with bfloat16 those were 0.8 to 1.9 times as fast, 1.1 to 1.2 times in the sizes of the
    tiny model, and nearer to float64.
    """
    if not query.is_cpu or torch.compiler.is_compiling() or query.shape[:3].numel() * keys.shape[2] < MIN_SCORES:
        return attention_sdpa(query, keys, values, out)
    return _backend_for(query.shape[3], query.dtype)(query, keys, values, out)
