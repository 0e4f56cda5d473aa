"""Attention of heads that attend to the same number of keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import fastest
from .onednn import float32_by_onednn, multiplies_float32

SCORES_PER_BLOCK = 2**20  # scores computed at a time: 4 MB of float32, which stay in a processor's cache
MAX_QUERY_ROWS = 384  # queries computed at a time
MIN_SCORES = 2**18  # with fewer scores (heads x queries x keys), two products are not worth their many calls

# PyTorch's attention must be this many times as fast to be chosen. That is above timing noise, so the choice, and with
# it the frames of a stream, are reproducible.
SDPA_MARGIN = 1.5


def token_major(query: Tensor) -> Tensor:
    """Return an empty tensor like `query`, stored token by token: `transpose(1, 2).flatten(2)` of it copies nothing."""
    batch, heads, tokens, size = query.shape
    return query.new_empty(batch, tokens, heads, size).transpose(1, 2)


def attention_bmm(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute `attention` as two float32 products by oneDNN with a softmax between, in blocks of scores."""
    batches, heads, tokens, size = query.shape
    key_tokens = keys.shape[2]
    rows = min(tokens, MAX_QUERY_ROWS, max(SCORES_PER_BLOCK // key_tokens, MAX_QUERY_ROWS // 2))
    heads_per_block = max(SCORES_PER_BLOCK // (rows * key_tokens), 1)
    scores = torch.empty(min(heads_per_block, heads), rows, key_tokens)
    out = token_major(query) if out is None else out
    with float32_by_onednn():
        for batch in range(batches):
            for first_head in range(0, heads, heads_per_block):
                head_block = slice(first_head, first_head + heads_per_block)
                q = query[batch, head_block].float()
                k = keys[batch, head_block].float().transpose(1, 2)
                v = values[batch, head_block].float()
                for first_row in range(0, tokens, rows):
                    row_block = slice(first_row, first_row + rows)
                    q_block = q[:, row_block]
                    weights = scores[: len(q_block), : q_block.shape[1]]
                    torch.baddbmm(weights, q_block, k, beta=0, alpha=size**-0.5, out=weights)
                    torch.softmax(weights, 2, out=weights)
                    out[batch, head_block, row_block] = torch.bmm(weights, v)
    return out


def attention_sdpa(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute `attention` by PyTorch's `scaled_dot_product_attention`."""
    result = F.scaled_dot_product_attention(query, keys.to(query.dtype), values.to(query.dtype))
    return result if out is None else out.copy_(result)


@lru_cache
def _backend_for(size: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return the faster of the two on this CPU for heads of `size`, measured on part of a chunk of the tiny model."""
    if dtype not in (torch.bfloat16, torch.float32) or not multiplies_float32():
        return attention_sdpa
    keys = torch.linspace(-3, 3, 2 * 768 * size).to(dtype).view(1, 2, 768, size)
    query = keys[:, :, :192]
    backends = {"torch": attention_sdpa, "products": attention_bmm}
    runs = {name: partial(backend, query, keys, keys) for name, backend in backends.items()}
    return backends[fastest("attention", (query, keys), runs, SDPA_MARGIN)]


def choose_attention(size: int, dtype: torch.dtype) -> None:
    """Choose now how a CPU attends to many keys, rather than in the middle of the first stream.

    Args:
        size: Dimensions of a head.
        dtype: Type of the queries.
    """
    _backend_for(size, dtype)


def attention(query: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute scaled dot-product attention, without gradients.

    On a CPU with many scores, the faster of `attention_sdpa` and `attention_bmm` runs, measured once per process.

    Args:
        query: [batch, heads, tokens, head_dim].
        keys: [batch, heads, key tokens, head_dim], of the type of `query` or fp8.
        values: Like `keys`.
        out: Where to write the result; a new tensor by default.

    Returns:
        The shape and type of `query`.
    """
    few = query.shape[:3].numel() * keys.shape[2] < MIN_SCORES
    if not query.is_cpu or torch.compiler.is_compiling() or few:
        return attention_sdpa(query, keys, values, out)
    return _backend_for(query.shape[3], query.dtype)(query, keys, values, out)
