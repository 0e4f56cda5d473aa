"""Which pages each head reads in each pass, and how far the choices of layers and passes agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .cache import HeadGroup, KVCache


@dataclass
class ChoiceProbe:
    """Notes the pages that every head reads in the passes of one chunk; give it to `Stream.step`.

    Args:
        passes: Names of the passes seen so far, in their order.
    """

    passes: list[str] = field(default_factory=list)
    _frames: tuple[int, ...] = ()
    _read: dict[tuple[str, int, int], set[tuple[int, int]]] = field(default_factory=dict)

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> bool:
        """Start a pass, as in `fkv.transformer.probes.Probe`."""
        self.passes.append(name)
        self._frames = frames
        return True

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """Note what heads of one group read in one layer, as in `fkv.transformer.probes.Probe`."""
        pages = cache.reading.pages(group, heads[0])
        read = set(zip(pages.frame.tolist(), pages.segment.tolist(), strict=True))
        earlier = {page for page in read if page[0] < self._frames[0]}
        self._read |= {(self.passes[-1], layer, head): earlier for head in heads}

    def overlap(self) -> Overlap:
        """How far choices agree. Pages that every head reads in every pass are no choice and do not count."""
        always = set.intersection(*self._read.values()) if self._read else set()
        pages = sorted(set().union(*self._read.values()) - always)
        layers = sorted({layer for _, layer, _ in self._read})
        heads = sorted({head for _, _, head in self._read})
        chosen = np.array(
            [
                [[[page in self._read[name, layer, head] for page in pages] for head in heads] for layer in layers]
                for name in self.passes
            ],
            np.float64,
        ).reshape(len(self.passes), len(layers), len(heads), len(pages))
        return Overlap(tuple(self.passes), _jaccard(chosen.transpose(1, 0, 2, 3)), _jaccard(chosen))


@dataclass(frozen=True)
class Overlap:
    """How many of the pages that one or the other chooses are chosen by both (Jaccard), from 0 to 1.

    Args:
        passes: Names of the passes.
        layers: Of each two layers, the mean over passes and heads, [layers, layers]; NaN where nothing is chosen.
        steps: Of each two passes, the mean over layers and heads, [passes, passes].
    """

    passes: tuple[str, ...]
    layers: np.ndarray
    steps: np.ndarray


def _jaccard(chosen: np.ndarray) -> np.ndarray:
    """Overlap of each two rows of 0 and 1, [n, ..., pages], the mean over what is between: [n, n]."""
    both = np.einsum("a...p,b...p->ab...", chosen, chosen)
    count = chosen.sum(-1)
    either = count[:, None] + count[None] - both
    share = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    counted = ~np.isnan(share)
    total = np.where(counted, share, 0).reshape(*both.shape[:2], -1).sum(-1)
    seen = counted.reshape(*both.shape[:2], -1).sum(-1)
    return np.divide(total, seen, out=np.full(total.shape, np.nan), where=seen > 0)
