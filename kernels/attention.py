"""Attention of heads that all hold the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import fastest
from .onednn import float32_by_onednn, multiplies_float32

SCORES = 2**20
"""How many scores are held at once: 4 MB, which stay in a processor's cache."""
MOST_ROWS = 384


def by_products(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`attention` as two products of oneDNN in float32 and a softmax between them, for some heads and queries at a time."""
    heads, tokens, size = query.shape[1:]
    held = keys.shape[2]
    rows = min(tokens, MOST_ROWS, max(SCORES // held, MOST_ROWS // 2))
    group = max(SCORES // (rows * held), 1)
    scores, out = torch.empty(min(group, heads), rows, held), query.new_empty(query.shape)
    with float32_by_onednn():
        for batch in range(len(query)):
            for own in (slice(first, first + group) for first in range(0, heads, group)):
                q, k, v = query[batch, own].float(), keys[batch, own].float().transpose(1, 2), values[batch, own].float()
                for part in (slice(first, first + rows) for first in range(0, tokens, rows)):
                    of = q[:, part]
                    weights = scores[: len(of), : of.shape[1]]
                    torch.baddbmm(weights, of, k, beta=0, alpha=size**-0.5, out=weights)
                    torch.softmax(weights, 2, out=weights)
                    out[batch, own, part] = torch.bmm(weights, v)
    return out


def by_pytorch(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`attention` as PyTorch computes it."""
    return F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype))


@lru_cache
def _way(size: int, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Which of the two is faster on this machine for heads of this size."""
    if dtype not in (torch.bfloat16, torch.float32) or not multiplies_float32():
        return by_pytorch
    query, keys = (torch.zeros(1, 8, tokens, size, dtype=dtype) for tokens in (512, 1024))
    ways = {"torch": by_pytorch, "products": by_products}
    return ways[fastest("attention", (query, keys), {name: partial(way, query, keys, keys) for name, way in ways.items()})]


def attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention: [batch, heads, tokens, head_dim] and keys and values [batch, heads, their tokens, head_dim], of
    query's type or in 8 bits -> query's shape and type. No gradients.

    On a CPU the faster of two ways, found out once: PyTorch's own, or products in float32 with a softmax between. On two cores of an
    AMD EPYC those were up to 1.7 times as fast, and nearer to float64.
    """
    if not query.is_cpu or torch.compiler.is_compiling():
        return by_pytorch(query, keys, values)
    return _way(query.shape[3], query.dtype)(query, keys, values)
