"""Attention of heads that all hold the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import fastest
from .onednn import has_wide_results, wide_results

SCORES = 2**20
"""How many scores are held at once: 4 MB, which stay in a processor's cache."""
MOST_ROWS = 384


def by_products(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`attention` as two matrix products of oneDNN and a softmax between them, for some heads and queries at a time."""
    heads, tokens, size = query.shape[1:]
    held = keys.shape[2]
    rows = min(tokens, MOST_ROWS, max(SCORES // held, MOST_ROWS // 2))
    group = max(SCORES // (rows * held), 1)
    scores, out = torch.empty(min(group, heads), rows, held), query.new_empty(query.shape)
    narrow = torch.empty_like(scores, dtype=query.dtype)
    with wide_results():
        for batch in range(len(query)):
            for own in (slice(first, first + group) for first in range(0, heads, group)):
                q, k, v = query[batch, own].float(), keys[batch, own].float().transpose(1, 2), values[batch, own].to(query.dtype)
                for part in (slice(first, first + rows) for first in range(0, tokens, rows)):
                    of = q[:, part]
                    made, weights = (buffer[: len(of), : of.shape[1]] for buffer in (scores, narrow))
                    torch.baddbmm(made, of, k, beta=0, alpha=size**-0.5, out=made)
                    torch.softmax(made, 2, out=made)
                    torch.bmm(weights.copy_(made), v, out=out[batch, own, part])
    return out


def by_pytorch(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`attention` as PyTorch computes it."""
    return F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype))


@lru_cache
def _way(size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Which of the two is faster on this machine, in bfloat16, for heads of this size."""
    if not has_wide_results():
        return by_pytorch
    query, keys = (torch.zeros(1, 8, tokens, size, dtype=torch.bfloat16) for tokens in (512, 1024))
    ways = {"torch": by_pytorch, "products": by_products}
    return ways[fastest("attention", (query, keys), {name: partial(way, query, keys, keys) for name, way in ways.items()})]


def attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention: [batch, heads, tokens, head_dim] and keys and values [batch, heads, their tokens, head_dim], of
    query's type or in 8 bits -> query's shape and type. No gradients.

    On a CPU, in bfloat16, PyTorch's own was seen at a fifth of the speed of matrix products (two cores of an AMD EPYC); two products
    with a softmax between were 1.1 to 2.1 times as fast there, and as near to float64.
    """
    if not query.is_cpu or query.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return by_pytorch(query, keys, values)
    return _way(query.shape[3])(query, keys, values)
