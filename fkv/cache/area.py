"""Where a chunk lies that is apart from the buffers: one layer after another has its slots in the same area."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

from fkv.kernels import put, take

from .group import FREE, HeadGroup

View = tuple[HeadGroup, slice, Tensor, Tensor]
"""What heads attend to: their group, its slice of `KVCache.order`, K and V of [batch, heads, tokens, head_dim]."""


class Area:
    """The slots of a layer, those of the chunk and copies of what is cached.

    Args:
        empty: A buffer without tokens, [batch, heads of a layer, 0, head_dim].

    Attributes:
        buffers: K and V, [batch, heads, tokens, head_dim] each.
    """

    def __init__(self, empty: Tensor) -> None:
        self.buffers = (empty, empty.new_empty(empty.shape))
        self._views: dict[int, list[View]] = {}
        self._copies: dict[str, tuple[Tensor, Tensor]] = {}  # of each group the tokens here, and those of its buffers

    def prepare(self, groups: Iterable[HeadGroup]) -> None:
        """Make room for the slots of these groups, and note what is copied from their buffers."""
        groups = list(groups)
        self._views.clear()
        keys, _ = self.buffers
        batch, heads, tokens, head_dim = keys.shape
        wanted = max(group.live * group.page_tokens for group in groups)
        if tokens < wanted:
            shape = (batch, heads, wanted, head_dim)
            self.buffers = (keys.new_empty(shape), keys.new_empty(shape))
        for group in groups:
            slots = np.flatnonzero((group.frame != FREE) & (group.place != FREE))
            self._copies[group.name] = group.tokens_of(slots), group.tokens_of(group.place[slots])

    def views(self, layer: int, slices: Sequence[tuple[HeadGroup, slice]]) -> list[View]:
        """Views of the slots of a layer, whatever lies there; `slices` as in `KVCache.slices`."""
        if layer not in self._views:
            keys, values = self.buffers
            self._views[layer] = [
                (group, heads, group.occupied(keys[:, heads]), group.occupied(values[:, heads]))
                for group, heads in slices
            ]
        return self._views[layer]

    def filled(self, layer: int, slices: Sequence[tuple[HeadGroup, slice]]) -> list[View]:
        """Copy what is cached beside the chunk, and return the views of a layer."""
        views = self.views(layer, slices)
        for group, _, keys, values in views:
            slots, places = self._copies[group.name]
            put(keys, slots, take(group.keys[layer], places))
            put(values, slots, take(group.values[layer], places))
        return views

    def settle(self, layer: int, slices: Sequence[tuple[HeadGroup, slice]], keep: Callable[[str], np.ndarray]) -> None:
        """Fill the buffers of a layer with what stays of the chunk, see `KVCache.settle`."""
        for group, _, keys, values in self.views(layer, slices):
            stays = group.stays or group.settle(keep(group.name))
            put(group.keys[layer], stays.target, take(keys, stays.source))
            put(group.values[layer], stays.target, take(values, stays.source))
