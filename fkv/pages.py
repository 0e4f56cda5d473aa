"""Page tables: which part of which latent frame lies in which slot of a head group's buffers, at which position.

A **page** is one segment of one latent frame; a **head group** is a set of heads, in every layer, with the same cached
pages and therefore one page table. `fkv.cache` moves the keys and values that the tables describe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

FREE = -1  # the frame number of a free slot

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


@dataclass(frozen=True, eq=False)
class Frozen:
    """Buffers of a head group that several caches share since one was forked; nobody writes to them any more.

    Args:
        keys: Per layer [batch, heads of the group, tokens, head_dim].
        values: Like `keys`.
        page_bytes: Bytes of K and V of a page in all layers.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    page_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of the buffers."""
        return sum(buffer.nbytes for buffer in (*self.keys, *self.values))


@dataclass(frozen=True, eq=False)
class Run:
    """Pages in frozen buffers; the `slot` of each is its place there."""

    home: Frozen
    pages: Pages

    def contiguous(self) -> list[Run]:
        """Split into runs whose pages lie one after another."""
        ends = np.flatnonzero(np.diff(self.pages.slot) != 1) + 1
        return [Run(self.home, self.pages[rows]) for rows in np.split(np.arange(len(self.pages)), ends) if len(rows)]


@dataclass(frozen=True)
class Reads:
    """Which pages of a group a pass reads, in key order, and how.

    Args:
        index: rows of the group's `Pages`, int [n]; the chunk's own pages are listed too, and a page may come twice.
            Or [heads of the model, n], where heads read different pages, as they are stored and weighed alike.
        position: temporal RoPE position at which the keys of each page are read, int [n]; None reads them as stored.
        log_weight: added to the attention scores of each page, float [n]; None weighs all pages alike.
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


PageTables = dict[str, tuple[tuple[np.ndarray, ...], np.ndarray, tuple[Run, ...]]]
"""Per head group the columns of its page table, arrays [slots] with `FREE` for the frame of slots without a page, the
place of each page, and its shared pages."""


@dataclass(frozen=True)
class Stays:
    """What stays of a group after a chunk that lies apart from its buffers.

    Args:
        mask: Which of the group's pages stay, bool [pages].
        source: Tokens of the chunk's pages that stay, counted by slots, int64 [n].
        target: Tokens of the buffers where they go, int64 [n].
    """

    mask: np.ndarray
    source: Tensor
    target: Tensor


@dataclass
class HeadGroup:
    """One page table and the buffers it describes.

    Args:
        name: Of the group.
        heads: Its heads, layer by layer.
        keys: Per layer [batch, heads of the group, tokens, head_dim].
        values: Like `keys`.
        frame: Latent frame in each slot, `FREE` where there is none, int [slots].
        segment: Segment in each slot, int [slots].
        position: Temporal RoPE position of the keys in each slot, int [slots].
        edited: Whether a policy has changed what is in each slot, bool [slots].
        place: Page of the buffers that has the content of each slot: the slot itself where chunks are written among
            the other pages; `FREE` while it lies apart, see `KVCache.begin`; int [slots].
        write_index: Token of the buffers for each token of the current chunk, int64 [chunk tokens].
        runs: Pages shared with other caches. They come before those of the buffers: `pages` counts slots from the first
            of them.
        stays: What stays after a chunk that lies apart, once that is known.
    """

    name: str
    heads: Heads
    keys: list[Tensor]
    values: list[Tensor]
    frame: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    segment: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    position: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    edited: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    place: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    write_index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    runs: tuple[Run, ...] = ()
    stays: Stays | None = None

    @property
    def capacity(self) -> int:
        """Slots of the page table."""
        return len(self.frame)

    @property
    def own(self) -> int:
        """Occupied pages of the buffers."""
        return int(np.count_nonzero(self.frame != FREE))

    @property
    def shared(self) -> int:
        """Pages in runs."""
        return sum(len(run.pages) for run in self.runs)

    @property
    def live(self) -> int:
        """Occupied pages, shared ones included."""
        return self.own + self.shared

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """Frame, segment, position and edited of each slot."""
        return self.frame, self.segment, self.position, self.edited

    @property
    def own_pages(self) -> Pages:
        """The pages of the buffers, slots counted from their beginning."""
        slot = np.flatnonzero(self.frame != FREE)
        return Pages(slot, *(column[slot] for column in self.columns))

    @property
    def pages(self) -> Pages:
        own = self.own_pages
        if not self.runs:
            return own
        slot = np.concatenate([np.arange(self.shared), own.slot + self.shared])
        tables = [*(run.pages.columns for run in self.runs), own.columns]
        return Pages(slot, *(np.concatenate(columns) for columns in zip(*tables, strict=True)))

    def keep(self, mask: np.ndarray) -> None:
        """Free the pages, in the order of `pages`, that the mask does not keep."""
        *shared, own = np.split(mask, np.cumsum([len(run.pages) for run in self.runs], dtype=int))
        self.runs = tuple(Run(r.home, r.pages[kept]) for r, kept in zip(self.runs, shared, strict=True) if kept.any())
        self.frame[self.own_pages.slot[~own]] = FREE

    def places(self, slots: np.ndarray) -> np.ndarray:
        """Where pages lie, by their slots in `pages`: shared ones first, then those of the buffers."""
        if not self.runs:
            return self.place[slots]
        places = slots.copy()
        own = slots >= self.shared
        places[own] = self.shared + self.place[slots[own] - self.shared]
        return places

    def freeze(self, page_bytes: int) -> None:
        """Make all pages shared ones, and the buffers empty."""
        if self.own:
            home = Frozen(tuple(self.keys), tuple(self.values), page_bytes)
            pages = self.own_pages
            self.runs += (Run(home, replace(pages, slot=self.place[pages.slot])),)
        self.keys, self.values = ([buffer[:, :, :0].clone() for buffer in side] for side in (self.keys, self.values))
        self.frame, self.segment, self.position, self.edited = (column[:0] for column in self.columns)
        self.place = self.place[:0]
