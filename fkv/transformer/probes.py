"""What sees queries and keys while a pass runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from fkv.cache import HeadGroup, KVCache


class Probe(Protocol):
    """Sees queries and keys of every head group while a pass runs; see `fkv.probe`."""

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> object:
        """Hear that a pass begins.

        Args:
            chunk: Index of the chunk.
            frames: Its latent frames.
            name: Of the pass: `step 0`, `step 1`, ... or `context`.

        Returns:
            Something true where the probe wants to see the pass.
        """

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """See one head group of one layer, or a head of it where heads read different pages.

        Args:
            layer: Index of the layer.
            group: The head group.
            heads: The numbers of these heads in the model.
            query: [batch, heads, chunk tokens, head_dim].
            keys: [batch, heads, live tokens, head_dim].
            cache: The cache that the group belongs to.
        """


class Probes:
    """Several probes as one; no probes at all are falsy and cost nothing."""

    def __init__(self, probes: Iterable[Probe] = ()) -> None:
        self._probes = tuple(probes)

    def __bool__(self) -> bool:
        return bool(self._probes)

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> Probes:
        """Return those that want to see the pass that begins."""
        return Probes(probe for probe in self._probes if probe.begin(chunk, frames, name))

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """Show one head group of one layer to all."""
        for probe in self._probes:
            probe.record(layer, group, heads, query, keys, cache)


NO_PROBES = Probes()
