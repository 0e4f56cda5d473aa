"""Attention to several segments of keys, each with a weight of its own, merged exactly by their log-sum-exp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Segment = tuple[Tensor, Tensor, float]
"""Keys and values [batch, heads, tokens, head_dim], and the log weight that is added to all their scores."""


def attention_lse(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Attend, and return the log-sum-exp of the scores as well.

    Args:
        query: [batch, heads, queries, head_dim].
        keys: [batch, heads, tokens, head_dim].
        values: As keys.

    Returns:
        The output, float32 [batch, heads, queries, head_dim], and the log-sum-exp, float32 [batch, heads, queries].
    """
    ops = torch.ops.aten
    if query.device.type == "cuda":
        out, lse, *_ = ops._scaled_dot_product_efficient_attention(query, keys, values, None, True)
        return out.float(), lse[..., : query.shape[2]].float()
    scores = (query.float() @ keys.float().transpose(2, 3)) * query.shape[3] ** -0.5
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp() @ values.float(), lse


def merged_attention(query: Tensor, segments: Sequence[Segment]) -> Tensor:
    """Attend to all segments at once, as if their keys were concatenated and their log weights added to the scores.

    Args:
        query: [batch, heads, queries, head_dim].
        segments: At least one; see `Segment`.

    Returns:
        [batch, heads, queries, head_dim], of the query's type.
    """
    parts = [
        (*attention_lse(query, keys.to(query.dtype), values.to(query.dtype)), weight)
        for keys, values, weight in segments
    ]
    lse = torch.stack([part + weight for _, part, weight in parts])
    shares = (lse - lse.logsumexp(0)).exp()
    return sum(share[..., None] * out for share, (out, *_) in zip(shares, parts, strict=True)).to(query.dtype)
