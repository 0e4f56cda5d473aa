"""Sizes, pages and readings: which part of which latent frame lies in which slot, and which of them a pass reads.

A **page** is one segment of one latent frame; a **head group** is a set of heads, in every layer, with the same cached
pages and therefore one page table. `fkv.cache` stores the keys and values of pages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

Head = tuple[int, int]
"""A layer and a head of that layer."""

Heads = tuple[tuple[int, ...], ...]
"""The heads of one group, layer by layer."""


@dataclass(frozen=True)
class Geometry:
    """Sizes that storage depends on.

    Args:
        layers: Attention layers.
        heads: Heads per layer.
        head_dim: Elements of a head's key.
        rows: Token rows of a latent frame.
        cols: Token columns of a latent frame.
        frames_per_chunk: Latent frames that are generated together (`num_frame_per_block` of Self Forcing).
        batch: Videos that are generated together.
    """

    layers: int
    heads: int
    head_dim: int
    rows: int
    cols: int
    frames_per_chunk: int = 3
    batch: int = 1

    def check_head(self, layer: int, head: int) -> None:
        """Raise ValueError unless the model has this head."""
        if not (0 <= layer < self.layers and 0 <= head < self.heads):
            raise ValueError(
                f"there is no head {head} in layer {layer}; the model has {self.layers} layers of {self.heads} heads"
            )

    def check_groups(self, groups: Mapping[str, Heads]) -> None:
        """Raise ValueError unless the groups hold every head of every layer exactly once."""
        for layer in range(self.layers):
            heads = sorted(head for group in groups.values() for head in group[layer])
            if heads != list(range(self.heads)):
                raise ValueError(
                    f"layer {layer}: the groups must hold each of {self.heads} heads once, they hold {heads}"
                )

    def check_segments(self, segments: int) -> None:
        """Raise ValueError unless a frame can be split into this many segments."""
        if segments < 1 or self.tokens_per_frame % segments:
            raise ValueError(f"{segments} segments do not divide the {self.tokens_per_frame} tokens of a frame evenly")

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.cols

    @property
    def chunk_elements(self) -> int:
        """Elements of the keys and values of a chunk, all layers and heads together."""
        tokens = self.batch * self.frames_per_chunk * self.tokens_per_frame
        return 2 * tokens * self.layers * self.heads * self.head_dim

    @property
    def every_layer(self) -> dict[str, Heads]:
        """A group for each layer, for policies that keep other pages in each."""
        every = tuple(range(self.heads))
        layers = range(self.layers)
        return {f"layer {layer}": tuple(every if other == layer else () for other in layers) for layer in layers}

    def layer_sets(self, size: int, first: int = 0) -> dict[str, Heads]:
        """A group for each run of neighbouring layers, for policies that let them share what they keep.

        Args:
            size: Layers of a run; the last run may be shorter.
            first: Layers before the first run, each of which is a group of its own.
        """
        starts = [*range(min(first, self.layers)), *range(min(first, self.layers), self.layers, size), self.layers]
        every = tuple(range(self.heads))
        return {
            f"layer {start}" if end == start + 1 else f"layers {start}-{end - 1}": tuple(
                every if start <= layer < end else () for layer in range(self.layers)
            )
            for start, end in pairwise(starts)
        }

    @property
    def every_head(self) -> dict[str, Heads]:
        """A single group of all heads, for policies that treat heads alike."""
        return {"all": (tuple(range(self.heads)),) * self.layers}


@dataclass(frozen=True)
class Pages:
    """Pages of one group, by default the occupied ones in slot order.

    Args:
        slot: Place in the buffers, in pages, int [pages].
        frame: Latent frame, int [pages].
        segment: Segment of that frame, int [pages].
        position: Temporal RoPE position at which the keys are stored, int [pages].
        edited: Whether a policy has changed the content, bool [pages].
    """

    slot: np.ndarray
    frame: np.ndarray
    segment: np.ndarray
    position: np.ndarray
    edited: np.ndarray

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """Frame, segment, position and edited of each page."""
        return self.frame, self.segment, self.position, self.edited

    def __getitem__(self, index: np.ndarray) -> Pages:
        return Pages(self.slot[index], *(column[index] for column in self.columns))

    def __len__(self) -> int:
        return len(self.slot)

    @property
    def names(self) -> set[tuple[int, int]]:
        """Frame and segment of each page."""
        return set(zip(self.frame.tolist(), self.segment.tolist(), strict=True))

    def among(self, names: Collection[tuple[int, int]]) -> np.ndarray:
        """Which of the pages have one of these names, bool [pages]."""
        named = zip(self.frame.tolist(), self.segment.tolist(), strict=True)
        return np.array([page in names for page in named], bool)

    def rows_of(self, frames: Collection[int]) -> np.ndarray:
        """Rows of the pages of these latent frames, in slot order, int [n]."""
        return np.flatnonzero(np.isin(self.frame, list(frames)))


@dataclass(frozen=True)
class Reads:
    """Which pages of a group a pass reads, in key order, and how.

    Args:
        index: Rows of the group's `Pages`, int [n]; the chunk's own pages are listed too, and a page may come twice.
            Or [heads of the model, n], where heads read different pages, as they are stored and weighed alike.
        position: Temporal RoPE position at which the keys of each page are read, int [n]; None reads them as stored.
        log_weight: Added to the attention scores of each page, float [n]; None weighs all pages alike.
    """

    index: np.ndarray
    position: np.ndarray | None = None
    log_weight: np.ndarray | None = None

    @property
    def by_head(self) -> bool:
        """Whether heads read different pages."""
        return self.index.ndim == 2

    def of(self, pages: Pages, head: int | None = None) -> Pages:
        """The pages that are read, in key order, at the positions where they are read.

        Args:
            pages: All pages of the group.
            head: A head. Without, where heads read different pages, those that any of them reads.
        """
        if self.by_head:
            return pages[np.unique(self.index) if head is None else self.index[head]]
        read = pages[self.index]
        return read if self.position is None else replace(read, position=self.position)
