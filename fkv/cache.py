"""Paged key/value storage. Storage only: which pages survive is a policy's affair, which head is which a role's.

Keys are stored after RoPE, so attention does not care in which order they lie. A **page** is one segment of one latent
frame; a **head group** is a set of heads, in every layer, that hold the same pages and so share one page table. The K
and V of a group's heads in one layer are one preallocated buffer. A chunk is written straight into free pages, once per
pass; committing it changes the page table. Live pages always form a prefix of the buffer, so attention reads a plain
view: nothing is gathered, rolled or concatenated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .kernels import put, take

FREE = -1
GROWTH = 1.125
"""By how much a buffer grows at least, so that a long stream under a policy that drops nothing does not copy all of it at every chunk."""

Heads = tuple[tuple[int, ...], ...]
"""The heads of one group, layer by layer."""


@dataclass(frozen=True)
class Geometry:
    """Sizes that storage depends on. A chunk is `frames_per_chunk` latent frames of `rows` x `cols` tokens each."""

    layers: int
    heads: int
    head_dim: int
    rows: int
    cols: int
    frames_per_chunk: int = 3
    batch: int = 1

    def check_head(self, layer: int, head: int) -> None:
        """Raises ValueError when there is no such head."""
        if not (0 <= layer < self.layers and 0 <= head < self.heads):
            raise ValueError(
                f"there is no head {head} in layer {layer}; the model has {self.layers} layers of {self.heads} heads"
            )

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.cols

    @property
    def every_head(self) -> dict[str, Heads]:
        """One group of all heads, as policies without head roles use it."""
        return {"all": (tuple(range(self.heads)),) * self.layers}


@dataclass(frozen=True)
class Pages:
    """Occupied pages of one group in slot order: slot, latent frame and segment of each, int arrays [pages]."""

    slot: np.ndarray
    frame: np.ndarray
    segment: np.ndarray

    def __len__(self) -> int:
        return len(self.slot)


@dataclass
class HeadGroup:
    """One page table and the buffers it describes: per layer K and V of [batch, heads of the group, tokens, head_dim]."""

    name: str
    heads: Heads
    keys: list[Tensor]
    values: list[Tensor]
    frame: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    segment: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    write_index: Tensor | None = None

    @property
    def capacity(self) -> int:
        """Slots of the buffer, in pages."""
        return len(self.frame)

    @property
    def live(self) -> int:
        """Occupied pages."""
        return int(np.count_nonzero(self.frame != FREE))

    @property
    def pages(self) -> Pages:
        slot = np.flatnonzero(self.frame != FREE)
        return Pages(slot, self.frame[slot], self.segment[slot])


class KVCache:
    """The cache of one stream.

    Parameters
    ----------
    geometry : sizes of the model and of the token grid.
    groups : group name -> heads per layer; together they must hold every head of every layer exactly once.
    segments : pages per frame; must divide the tokens of a frame.
    dtype, device : of the buffers; in 8 bits, a dtype of kernels that widen what they read.

    Raises ValueError when `segments` does not divide the frame or the groups do not partition the heads.
    """

    def __init__(
        self,
        geometry: Geometry,
        groups: Mapping[str, Heads],
        segments: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if segments < 1 or geometry.tokens_per_frame % segments:
            raise ValueError(
                f"{segments} segments do not divide the {geometry.tokens_per_frame} tokens of a frame evenly"
            )
        self.geometry, self.segments = geometry, segments
        self.page_tokens = geometry.tokens_per_frame // segments
        self.dtype, self.device = dtype, torch.device(device)
        self.groups = {
            name: HeadGroup(name, heads, *([self._empty(len(layer), 0) for layer in heads] for _ in "kv"))
            for name, heads in groups.items()
        }
        self.opening = True
        self.order = self._order()
        self.slices = [self._slices(layer) for layer in range(geometry.layers)]
        self._views: dict[int, list[tuple[HeadGroup, slice, Tensor, Tensor]]] = {}

    def _empty(self, heads: int, tokens: int) -> Tensor:
        return torch.empty(
            self.geometry.batch, heads, tokens, self.geometry.head_dim, dtype=self.dtype, device=self.device
        )

    def _order(self) -> Heads:
        """Heads per layer in storage order, in which every group is a contiguous slice."""
        geometry, groups = self.geometry, self.groups.values()
        order = tuple(
            tuple(head for group in groups for head in group.heads[layer]) for layer in range(geometry.layers)
        )
        for layer, heads in enumerate(order):
            if sorted(heads) != list(range(geometry.heads)):
                raise ValueError(
                    f"layer {layer}: the groups must hold each of {geometry.heads} heads once, they hold {sorted(heads)}"
                )
        return order

    def _slices(self, layer: int) -> list[tuple[HeadGroup, slice]]:
        slices, start = [], 0
        for group in self.groups.values():
            stop = start + len(group.heads[layer])
            if stop > start:
                slices.append((group, slice(start, stop)))
            start = stop
        return slices

    # A chunk's life: begin, then write and read once per pass and layer, then commit.

    def begin(self, frames: Sequence[int]) -> None:
        """Reserve pages for the chunk of these latent frames in every group; afterwards live pages are a prefix.
        `opening` says whether it is the first chunk, with nothing before it.

        Free slots are reused first, the buffer grows only when they do not suffice (`GROWTH`). When fewer pages are live than
        before, the last ones move down into the remaining holes, which a steady stream never needs.
        """
        wanted = len(frames) * self.segments
        self.opening = not self.frames()
        self._views.clear()
        for group in self.groups.values():
            live = group.live + wanted
            if live > group.capacity:
                self._grow(group, max(live, int(group.capacity * GROWTH)))
            slots = np.flatnonzero(group.frame == FREE)[:wanted]
            group.frame[slots] = np.repeat(np.asarray(frames), self.segments)
            group.segment[slots] = np.tile(np.arange(self.segments), len(frames))
            tail = live + np.flatnonzero(group.frame[live:] != FREE)
            if len(tail):
                holes = np.flatnonzero(group.frame[:live] == FREE)
                self._move(group, tail, holes)
                slots[np.isin(slots, tail)] = holes[np.searchsorted(tail, slots[np.isin(slots, tail)])]
            index = self._tokens(slots)
            if group.write_index is None or group.write_index.shape != index.shape:
                group.write_index = index
            group.write_index.copy_(index)

    def where(self) -> tuple:
        """Everything by which two passes differ in the memory that they read and write."""
        return self.opening, *(
            (g.live, g.write_index.data_ptr(), *(x.data_ptr() for x in (*g.keys, *g.values)))
            for g in self.groups.values()
        )

    def targets(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Where the current chunk goes, per group in this layer: the K and V buffers [batch, heads, tokens, head_dim] and
        the token index of each of the chunk's tokens, int64 [chunk tokens]."""
        return [(group.keys[layer], group.values[layer], group.write_index) for group, _ in self.slices[layer]]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the current chunk's K (after RoPE) and V, [batch, chunk tokens, heads in `order`, head_dim]."""
        for (_, heads), (to_keys, to_values, index) in zip(self.slices[layer], self.targets(layer)):
            put(to_keys, index, keys[:, :, heads].transpose(1, 2))
            put(to_values, index, values[:, :, heads].transpose(1, 2))

    def read(self, layer: int) -> list[tuple[HeadGroup, slice, Tensor, Tensor]]:
        """Per group in this layer: the group, its slice of `order`, and views K, V [batch, heads, live tokens, head_dim]."""
        if layer not in self._views:
            self._views[layer] = [
                (
                    group,
                    heads,
                    *(side[layer][:, :, : group.live * self.page_tokens] for side in (group.keys, group.values)),
                )
                for group, heads in self.slices[layer]
            ]
        return self._views[layer]

    def evict(self, keep_masks: Mapping[str, np.ndarray]) -> None:
        """Keep the pages whose entry in the group's boolean mask [pages] is true, free the rest. Moves no tensor.

        Raises ValueError when a mask does not fit its group's pages.
        """
        self._views.clear()
        for name, group in self.groups.items():
            keep, pages = np.asarray(keep_masks[name], bool), group.pages
            if keep.shape != (len(pages),):
                raise ValueError(f"group {name!r} has {len(pages)} pages, its mask has shape {keep.shape}")
            group.frame[pages.slot[~keep]] = FREE

    # The page table in figures.

    def tokens(self) -> dict[str, int]:
        """Tokens held per group, which is the key length that its heads attend to during a chunk."""
        return {name: group.live * self.page_tokens for name, group in self.groups.items()}

    def frames(self) -> list[int]:
        """Latent frames of which any group holds a page, sorted."""
        return sorted({int(frame) for group in self.groups.values() for frame in group.pages.frame})

    def bytes(self) -> int:
        """Bytes of K and V in occupied pages, counted from the page tables."""
        return sum(group.live * self._page_bytes(group) for group in self.groups.values())

    def allocated_bytes(self) -> int:
        """Bytes of K and V buffers, counted from the page tables; a stream that settles within 27 frames fills them completely."""
        return sum(group.capacity * self._page_bytes(group) for group in self.groups.values())

    def _page_bytes(self, group: HeadGroup) -> int:
        heads = sum(map(len, group.heads))
        return 2 * self.geometry.batch * heads * self.page_tokens * self.geometry.head_dim * self.dtype.itemsize

    def keys_of(self, layer: int, name: str, frames: Sequence[int]) -> Tensor:
        """A copy of the keys that a group holds of whole frames: [batch, heads, len(frames), tokens_per_frame, head_dim].

        Raises KeyError when a page of one of the frames is not held.
        """
        group = self.groups[name]
        slot_of = {(f, s): i for i, f, s in zip(group.pages.slot, group.pages.frame, group.pages.segment)}
        slots = np.array([slot_of[frame, segment] for frame in frames for segment in range(self.segments)])
        keys = take(group.keys[layer], self._tokens(slots))
        return keys.unflatten(2, (len(frames), self.geometry.tokens_per_frame))

    # Rare changes: positions, head groups.

    def rotate(self, frames: Collection[int], turn: Tensor) -> None:
        """Turn the stored keys of these latent frames by `turn`, complex [head_dim / 2]: a shift of their RoPE position."""
        for group in self.groups.values():
            pages = group.pages
            tokens = self._tokens(pages.slot[np.isin(pages.frame, list(frames))])
            for keys in group.keys:
                pairs = torch.view_as_complex(take(keys, tokens).float().unflatten(-1, (-1, 2)))
                put(keys, tokens, torch.view_as_real(pairs * turn).flatten(-2))

    def regrouped(self, groups: Mapping[str, Heads], segments: int, dtype: torch.dtype | None = None) -> KVCache:
        """The same content under other head groups or page sizes or in another type, in buffers of exactly the size that is needed.

        A new group holds a page when all of its heads, in every layer, held all of its tokens before: splitting a
        group loses nothing, joining two keeps what both have.
        """
        new = KVCache(self.geometry, groups, segments, dtype or self.dtype, self.device)
        frames = np.array(self.frames(), np.int64)
        tokens = {
            name: self._token_table(group, frames).reshape(len(frames), segments, -1)
            for name, group in self.groups.items()
        }
        for group in new.groups.values():
            sources = [[self._source(layer, head) for head in heads] for layer, heads in enumerate(group.heads)]
            names = {source.name for heads in sources for source, _ in heads}
            if not names:
                continue
            held = np.all([tokens[name] != FREE for name in names], axis=0).all(-1)
            at, group.segment = np.nonzero(held)
            group.frame = frames[at]
            index = {name: torch.from_numpy(tokens[name][held].reshape(-1)).to(self.device) for name in names}
            for layer, heads in enumerate(sources):
                group.keys[layer] = new._empty(len(heads), len(at) * new.page_tokens)
                group.values[layer] = new._empty(len(heads), len(at) * new.page_tokens)
                for row, (source, old) in enumerate(heads):
                    group.keys[layer][:, row, None] = take(source.keys[layer][:, old, None], index[source.name])
                    group.values[layer][:, row, None] = take(source.values[layer][:, old, None], index[source.name])
        return new

    def _source(self, layer: int, head: int) -> tuple[HeadGroup, int]:
        """The group that stores a head of a layer, and the head's row in its buffers."""
        return next((g, g.heads[layer].index(head)) for g in self.groups.values() if head in g.heads[layer])

    def _token_table(self, group: HeadGroup, frames: np.ndarray) -> np.ndarray:
        """Where each token of `frames` lies in the group's buffers, `FREE` where it is not held: [frames, tokens_per_frame]."""
        pages = group.pages
        table = np.full((len(frames), self.segments, self.page_tokens), FREE)
        table[np.searchsorted(frames, pages.frame), pages.segment] = pages.slot[:, None] * self.page_tokens + np.arange(
            self.page_tokens
        )
        return table.reshape(len(frames), -1)

    def _tokens(self, slots: np.ndarray) -> Tensor:
        index = slots[:, None] * self.page_tokens + np.arange(self.page_tokens)
        return torch.from_numpy(index.reshape(-1)).to(self.device)

    def _grow(self, group: HeadGroup, capacity: int) -> None:
        old = group.capacity * self.page_tokens
        for buffers in (group.keys, group.values):
            for layer, buffer in enumerate(buffers):
                grown = self._empty(buffer.shape[1], capacity * self.page_tokens)
                grown[:, :, :old] = buffer
                buffers[layer] = grown
        more = np.full(capacity - group.capacity, FREE)
        group.frame, group.segment = np.concatenate([group.frame, more]), np.concatenate([group.segment, more])

    def _move(self, group: HeadGroup, source: np.ndarray, target: np.ndarray) -> None:
        old, new = self._tokens(source), self._tokens(target)
        for buffer in (*group.keys, *group.values):
            put(buffer, new, take(buffer, old))
        group.frame[target], group.segment[target] = group.frame[source], group.segment[source]
        group.frame[source] = FREE
