"""A cache in other head groups, page sizes or types."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from fkv.kernels import take
from fkv.pages import Heads

from .group import FREE, HeadGroup
from .kv_cache import KVCache


def regrouped(cache: KVCache, groups: Mapping[str, Heads], segments: int, dtype: torch.dtype | None = None) -> KVCache:
    """Copy a cache into other head groups, page sizes or types, in buffers of exactly the size that is needed.

    A new group has a page when all of its heads, in every layer, had all of its tokens before: splitting a group loses
    nothing, joining two keeps what both have. A page counts as edited when all of its heads had it, as large, edited.

    Args:
        cache: The cache. Pages that it shares are copied to its own buffers.
        groups: The new groups, name -> heads per layer.
        segments: Pages per frame of the new cache.
        dtype: Of the new buffers; by default that of `cache`.

    Returns:
        The new cache.
    """
    new = type(cache)(cache.geometry, groups, segments, dtype or cache.dtype, cache.device)
    new.notes = dict(cache.notes)
    for group in cache.groups.values():
        group.straighten(0)
    frames = np.array(cache.frames(), np.int64)
    positions = np.array(cache.positions_of(frames.tolist()), np.int64)
    tokens = {
        name: _token_table(cache, group, frames).reshape(len(frames), segments, new.page_tokens)
        for name, group in cache.groups.items()
    }
    for group in new.groups.values():
        sources = [[_source(cache, layer, head) for head in heads] for layer, heads in enumerate(group.heads)]
        names = {source.name for heads in sources for source, _ in heads}
        if not names:
            continue
        cached = np.all([tokens[name] != FREE for name in names], axis=0).all(-1)
        at, group.segment = np.nonzero(cached)
        group.frame = frames[at]
        group.position = positions[at]
        group.edited = np.all([_edited(cache, name, segments, frames)[cached] for name in names], 0)
        group.place = np.arange(len(at))
        index = {name: torch.from_numpy(tokens[name][cached].reshape(-1)).to(cache.device) for name in names}
        for layer, heads in enumerate(sources):
            group.keys[layer] = new.empty(len(heads), len(at) * new.page_tokens)
            group.values[layer] = new.empty(len(heads), len(at) * new.page_tokens)
            for row, (source, old) in enumerate(heads):
                group.keys[layer][:, row, None] = take(source.keys[layer][:, old, None], index[source.name])
                group.values[layer][:, row, None] = take(source.values[layer][:, old, None], index[source.name])
    return new


def _source(cache: KVCache, layer: int, head: int) -> tuple[HeadGroup, int]:
    """The group that stores a head of a layer, and the head's row in its buffers."""
    return next((g, g.heads[layer].index(head)) for g in cache.groups.values() if head in g.heads[layer])


def _edited(cache: KVCache, name: str, segments: int, frames: np.ndarray) -> np.ndarray:
    """Which pages of `frames` are edited in a group, bool [frames, segments]; none where they have another size."""
    table = np.zeros((len(frames), segments), bool)
    pages = cache.groups[name].pages
    if segments == cache.segments:
        table[np.searchsorted(frames, pages.frame), pages.segment] = pages.edited
    return table


def _token_table(cache: KVCache, group: HeadGroup, frames: np.ndarray) -> np.ndarray:
    """Place of each token of `frames` in the group's buffers, or `FREE`: int [frames, tokens_per_frame]."""
    pages = group.pages
    table = np.full((len(frames), cache.segments, group.page_tokens), FREE)
    first = group.place[pages.slot][:, None] * group.page_tokens
    table[np.searchsorted(frames, pages.frame), pages.segment] = first + np.arange(group.page_tokens)
    return table.reshape(len(frames), cache.geometry.tokens_per_frame)
