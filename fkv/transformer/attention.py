"""Self-attention of a layer over the cache: write the chunk, then let every head group attend to what it reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fkv.cache import HeadGroup, KVCache
from fkv.kernels import (
    attention_of_rows,
    attention_over_runs,
    hybrid_attention,
    merged_attention,
    norm_rope_store,
    take,
)

from .block import BlockWeights
from .passes import Pass
from .probes import Probes


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Put rows of a batch one behind the other; a single one is not copied."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


def self_attention(
    layer: int, qkv: Sequence[Tensor], weights: BlockWeights, passes: Sequence[Pass], eps: float
) -> Tensor:
    """Write the chunk of every pass to its cache and attend to the live pages of the cache.

    Args:
        layer: Attention layer.
        qkv: Of each pass, queries, keys and values before their norm and RoPE, [batch, tokens, 3 * dim].
        weights: Of the block.
        passes: The passes.
        eps: Of the norms.

    Returns:
        [batch of all passes, tokens, dim].
    """
    queries = []
    for part, each in zip(qkv, passes, strict=True):
        targets = each.cache.targets(layer)
        query = norm_rope_store(part, weights.qk_norm_weight, eps, each.freqs_cis, targets)
        if each.cache.select:
            each.cache.select(layer, query)
        queries.append(query)
    if _at_once(queries, passes):
        rows = attention_of_rows(torch.cat(queries), [each.cache.read_runs(layer) for each in passes])
        out = rows.transpose(1, 2).flatten(2)
    else:
        pairs = zip(queries, passes, strict=True)
        out = stacked([attend(layer, query, each.cache, each.probes) for query, each in pairs])
    for each in passes:
        if each.cache.keep:
            each.cache.settle(layer, each.cache.keep)
    return out


def _at_once(queries: Sequence[Tensor], passes: Sequence[Pass]) -> bool:
    """Whether one launch attends for all passes: on a GPU, where nothing but attention is wanted of any."""
    if len(passes) == 1 or not queries[0].is_cuda:
        return False
    plain = not any(each.probes or each.cache.reading.weighted for each in passes)
    return plain and len({each.cache.dtype for each in passes}) == 1


def attend(layer: int, query: Tensor, cache: KVCache, probes: Probes) -> Tensor:
    """Attend to every head group's live pages: [batch, heads, tokens, head_dim] -> [batch, tokens, dim]."""
    runs = cache.read_runs(layer) if cache.shares_pages and not cache.reading.weighted else None
    groups = cache.read(layer) if runs is None or probes else []
    if runs is not None:
        out = attention_over_runs(query, runs)
    elif cache.reading.weighted:
        parts = [_attend_weighted(query[:, heads], group, keys, values, cache) for group, heads, keys, values in groups]
        out = torch.cat(parts, 1)
    else:
        out = hybrid_attention(query, [(keys, values) for _, _, keys, values in groups])
    if probes:
        for group, heads, keys, _ in groups:
            own_query, own_heads = query[:, heads], group.heads[layer]
            for part in cache.reading.parted(group, layer):
                probes.record(layer, group, own_heads[part], own_query[:, part], keys[:, part], cache)
    return out.transpose(1, 2).flatten(2)


def _attend_weighted(query: Tensor, group: HeadGroup, keys: Tensor, values: Tensor, cache: KVCache) -> Tensor:
    """Attention of one head group whose pages have log weights; pages of equal weight are one segment."""
    weights = cache.reading.log_weights(group)
    if weights is None:
        weights = np.zeros(keys.shape[2] // cache.page_tokens)
    segments = []
    for weight in np.unique(weights):
        pages = np.flatnonzero(weights == weight)[:, None] * cache.page_tokens + np.arange(cache.page_tokens)
        tokens = torch.from_numpy(pages.reshape(-1)).to(keys.device)
        segments.append((take(keys, tokens), take(values, tokens), float(weight)))
    return merged_attention(query, segments)
