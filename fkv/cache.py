"""Paged storage of keys and values. Storage only: policies decide which pages stay, head roles which head is which.

Keys are stored after RoPE, so their order in memory does not matter to attention. The K and V of a head group in one
layer share one preallocated buffer, which the group's page table describes (`fkv.pages`). A chunk is written straight
into free pages, once per pass; evicting pages changes the page table alone. Occupied pages form a prefix of the buffer
while a chunk is generated, so attention reads a plain view: nothing is gathered, rolled or concatenated. After a fork
that shares pages, a group also reads **runs**: pages in buffers that are frozen since.

Where few pages stay, the chunk lies **apart**: every layer in turn has its slots in one area, to which its pages are
copied. The buffers then have room for what stays between chunks alone, and the chunk's last pass fills them (`settle`).
Attention reads the same keys in the same order either way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .kernels import join, put, rope_freqs_cis, take
from .pages import FREE, Frozen, Geometry, HeadGroup, Heads, Pages, PageTables, Reads, Run, Stays

GROWTH = 1.125  # a buffer grows at least by this factor, so that a cache without eviction is not copied for every chunk
MOST_RUNS = 4  # shared pages of a group lie in at most so many places while a chunk is generated


View = tuple[HeadGroup, slice, Tensor, Tensor]
"""What heads attend to: their group, its slice of `KVCache.order`, K and V of [batch, heads, tokens, head_dim]."""


class KVCache:
    """The cache of one stream.

    Args:
        geometry: Sizes of the model and of the token grid.
        groups: Group name -> heads per layer; together they hold every head of every layer exactly once.
        segments: Pages per frame; divides the tokens of a frame.
        dtype: Of the buffers; fp8 where the attention kernels convert what they read.
        device: Of the buffers.

    Raises:
        ValueError: `segments` does not divide a frame or the groups do not partition the heads.
    """

    def __init__(
        self,
        geometry: Geometry,
        groups: Mapping[str, Heads],
        segments: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        geometry.check_segments(segments)
        geometry.check_groups(groups)
        self.geometry = geometry
        self.segments = segments
        self.page_tokens = geometry.tokens_per_frame // segments
        self.dtype = dtype
        self.device = torch.device(device)
        self.groups = {
            name: HeadGroup(
                name,
                heads,
                keys=[self._empty(len(layer), 0) for layer in heads],
                values=[self._empty(len(layer), 0) for layer in heads],
            )
            for name, heads in groups.items()
        }
        self.opening = True
        # Heads per layer in storage order, in which every group is a contiguous slice.
        self.order: Heads = tuple(
            tuple(head for heads in groups.values() for head in heads[layer]) for layer in range(geometry.layers)
        )
        self.slices = [self._slices(layer) for layer in range(geometry.layers)]
        self._views: dict[int, list[View]] = {}
        # Whether the current chunk lies apart, K and V of the area where it does, and per group the tokens of the area
        # and of the buffers of what is cached.
        self.apart = False
        self._area = [self._empty(geometry.heads, 0) for _ in range(2)]
        self._copies: dict[str, tuple[Tensor, Tensor]] = {}
        # Says what stays of a group, during the pass that fills the buffers from a chunk that lies apart.
        self.keep: Callable[[str], np.ndarray] | None = None
        # What the policy remembers about this cache from chunk to chunk.
        self.notes: dict[str, Any] = {}
        # What the policy computes from the keys of this cache. No other cache takes it over.
        self.derived: dict[Any, Any] = {}
        # Called with layer and queries before a layer reads, where the policy asks for it.
        self.select: Callable[[int, Tensor], None] | None = None
        self._reads: dict[str, Reads] = {}

    def _empty(self, heads: int, tokens: int) -> Tensor:
        return torch.empty(
            self.geometry.batch, heads, tokens, self.geometry.head_dim, dtype=self.dtype, device=self.device
        )

    def _slices(self, layer: int) -> list[tuple[HeadGroup, slice]]:
        """Each group that has heads in a layer, and their slice of `order`."""
        slices = []
        start = 0
        for group in self.groups.values():
            stop = start + len(group.heads[layer])
            if stop > start:
                slices.append((group, slice(start, stop)))
            start = stop
        return slices

    @property
    def heads(self) -> dict[str, Heads]:
        """Group name -> its heads per layer."""
        return {name: group.heads for name, group in self.groups.items()}

    def heads_of(self, layer: int, name: str) -> slice:
        """The slice of `order` that a group has in a layer."""
        return next(heads for group, heads in self.slices[layer] if group.name == name)

    # The life of a chunk: begin, then write and read once per pass and layer, then evict.

    def begin(self, frames: Sequence[int], positions: Sequence[int] | None = None, apart: bool = False) -> None:
        """Reserve pages for a chunk in every group; afterwards occupied pages are a prefix of the buffers.

        Free slots are reused first; a buffer grows only when they do not suffice (`GROWTH`). When fewer pages are
        occupied than before, the last ones move down into the remaining holes, which a steady stream never needs.
        `opening` says whether nothing was cached before this chunk.

        Args:
            frames: Latent frames of the chunk.
            positions: Their temporal RoPE positions; by default their numbers.
            apart: Let the chunk lie apart from the buffers, which then only grow to what stays after it. Its last pass
                has to `settle`. Not where pages are shared.
        """
        wanted = len(frames) * self.segments
        self.opening = not self.frames()
        self.apart = apart and not self.shares_pages
        self._views.clear()
        self._reads.clear()
        for group in self.groups.values():
            group.stays = None
            if group.runs:
                self._straighten(group)
            if not self.apart:
                self._spread(group)
            live = group.own + wanted
            slots = self._free_slots(group, wanted)
            group.frame[slots] = np.repeat(np.asarray(frames), self.segments)
            group.segment[slots] = np.tile(np.arange(self.segments), len(frames))
            group.position[slots] = np.repeat(np.asarray(positions or frames), self.segments)
            group.edited[slots] = False
            group.place[slots] = FREE if self.apart else slots
            tail = live + np.flatnonzero(group.frame[live:] != FREE)
            if len(tail):
                holes = np.flatnonzero(group.frame[:live] == FREE)
                self._move(group, tail, holes)
                slots[np.isin(slots, tail)] = holes[np.searchsorted(tail, slots[np.isin(slots, tail)])]
            index = self._tokens(slots)
            if group.write_index.shape != index.shape:
                group.write_index = index
            group.write_index.copy_(index)
        if self.apart:
            self._prepare_area()

    def _prepare_area(self) -> None:
        """Make room for the slots of a layer, and note what is copied to them from the buffers."""
        tokens = self.page_tokens * max(group.live for group in self.groups.values())
        if self._area[0].shape[2] < tokens:
            self._area = [self._empty(self.geometry.heads, tokens) for _ in range(2)]
        for name, group in self.groups.items():
            slots = np.flatnonzero((group.frame != FREE) & (group.place != FREE))
            self._copies[name] = self._tokens(slots), self._tokens(group.place[slots])

    def _spread(self, group: HeadGroup) -> None:
        """Let every page of a group lie at its slot, as a chunk needs it that is written among them."""
        slots = np.flatnonzero(group.frame != FREE)
        if (group.place[slots] == slots).all():
            return
        source, target = self._tokens(group.place[slots]), self._tokens(slots)
        for buffers in (group.keys, group.values):
            for layer, buffer in enumerate(buffers):
                buffers[layer] = self._empty(buffer.shape[1], group.capacity * self.page_tokens)
                put(buffers[layer], target, take(buffer, source))
        group.place[slots] = slots

    def _free_slots(self, group: HeadGroup, wanted: int) -> np.ndarray:
        """The first free slots of a group's buffers, which grow where these do not suffice."""
        live = group.own + wanted
        if live > group.capacity:
            self._add_slots(group, max(live, int(group.capacity * GROWTH)))
        if not self.apart:
            self._grow(group, group.capacity)
        return np.flatnonzero(group.frame == FREE)[:wanted]

    def _straighten(self, group: HeadGroup, most: int = MOST_RUNS) -> None:
        """Let the pages of each run lie one after another. The smallest of more than `most` runs are copied instead."""
        runs = [part for run in group.runs for part in run.contiguous()]
        shared = sorted(runs, key=lambda run: -len(run.pages))[:most]
        group.runs = tuple(run for run in runs if run in shared)
        for run in runs:
            if run not in shared:
                self._copy_in(group, run)

    def _copy_in(self, group: HeadGroup, run: Run) -> None:
        """Copy the pages of a run to the group's own buffers."""
        slots = self._free_slots(group, len(run.pages))
        source, target = self._tokens(run.pages.slot), self._tokens(slots)
        for buffers, frozen in ((group.keys, run.home.keys), (group.values, run.home.values)):
            for buffer, shared in zip(buffers, frozen, strict=True):
                put(buffer, target, take(shared, source))
        for column, shared_column in zip(group.columns, run.pages.columns, strict=True):
            column[slots] = shared_column
        group.place[slots] = slots

    def aim(self, frames: Sequence[int]) -> None:
        """Let passes write to the pages of these cached frames, in place of what they hold; not to shared pages."""
        for group in self.groups.values():
            pages = group.own_pages[group.own_pages.rows_of(frames)]
            in_order = np.lexsort((pages.segment, pages.frame))
            group.write_index.copy_(self._tokens(pages.slot[in_order]))

    def memory_key(self) -> tuple[object, ...]:
        """A key that is equal for passes that read and write the same memory, as a CUDA graph needs it."""
        if self._reads or self.select or self.apart:
            return (object(),)  # a pass that gathers pages equals no other
        return self.opening, *(
            (
                group.live,
                group.write_index.data_ptr(),
                *(buffer.data_ptr() for buffer in (*group.keys, *group.values)),
                *((*map(Tensor.data_ptr, run.home.keys), *run.pages.slot[[0, -1]].tolist()) for run in group.runs),
            )
            for group in self.groups.values()
        )

    def targets(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Where to write the current chunk.

        Returns:
            Per group in this layer: the K and the V buffer, [batch, heads, tokens, head_dim], and the token of the
            buffers for each token of the chunk, int64 [chunk tokens].
        """
        if self.apart:
            return [(keys, values, group.write_index) for group, _, keys, values in self._area_views(layer)]
        return [(group.keys[layer], group.values[layer], group.write_index) for group, _ in self.slices[layer]]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the K and V of the current chunk.

        Args:
            layer: Attention layer.
            keys: After RoPE, [batch, chunk tokens, heads in `order`, head_dim].
            values: Like `keys`.
        """
        for (_, heads), (to_keys, to_values, index) in zip(self.slices[layer], self.targets(layer), strict=True):
            put(to_keys, index, keys[:, :, heads].transpose(1, 2))
            put(to_values, index, values[:, :, heads].transpose(1, 2))

    def settle(self, layer: int, keep: Callable[[str], np.ndarray]) -> None:
        """Fill the buffers of a layer with what stays of a chunk that lies apart; the layer attends no more.

        Args:
            layer: Attention layer.
            keep: Says which pages of a group stay, bool [pages]. It is asked in the first layer of each.
        """
        for group, _, keys, values in self._area_views(layer):
            if group.stays is None:
                group.stays = self._stays(group, keep(group.name))
            put(group.keys[layer], group.stays.target, take(keys, group.stays.source))
            put(group.values[layer], group.stays.target, take(values, group.stays.source))

    def _stays(self, group: HeadGroup, mask: np.ndarray) -> Stays:
        """Choose places in the buffers for the pages of the chunk that stay: those of pages that do not."""
        mask = _checked(group, mask)
        slots = group.own_pages.slot[mask]
        new = slots[group.place[slots] == FREE]
        self._grow(group, len(slots))
        group.place[new] = np.setdiff1d(np.arange(len(slots)), group.place[slots])[: len(new)]
        return Stays(mask, self._tokens(new), self._tokens(group.place[new]))

    def read(self, layer: int) -> list[View]:
        """Views of what a layer attends to.

        Returns:
            Per group in this layer: a group, its slice of `order`, K and V of [batch, heads, cached tokens, head_dim].
        """
        if self._reads:
            return [(group, heads, *self._gathered(layer, group)) for group, heads in self.slices[layer]]
        return self.read_stored(layer)

    def read_stored(self, layer: int) -> list[View]:
        """Like `read`, every page as it is stored. Shared pages are copied, and all where a chunk lies apart."""
        if self.apart:
            views = self._area_views(layer)
            for group, _, keys, values in views:
                slots, places = self._copies[group.name]
                put(keys, slots, take(group.keys[layer], places))
                put(values, slots, take(group.values[layer], places))
            return views
        if self.shares_pages:
            runs = [self._runs(layer, group) for group, _ in self.slices[layer]]
            sides = [tuple(zip(*each, strict=True)) for each in runs]
            return [
                (group, heads, join(keys), join(values))
                for (group, heads), (keys, values) in zip(self.slices[layer], sides, strict=True)
            ]
        if layer not in self._views:
            self._views[layer] = [
                (group, heads, self._occupied(group, group.keys[layer]), self._occupied(group, group.values[layer]))
                for group, heads in self.slices[layer]
            ]
        return self._views[layer]

    def _area_views(self, layer: int) -> list[View]:
        """What `read_stored` returns of the area, whatever lies there."""
        if layer not in self._views:
            keys, values = self._area
            self._views[layer] = [
                (group, heads, self._occupied(group, keys[:, heads]), self._occupied(group, values[:, heads]))
                for group, heads in self.slices[layer]
            ]
        return self._views[layer]

    @property
    def shares_pages(self) -> bool:
        """Whether some pages lie in buffers that other caches read too."""
        return any(group.runs for group in self.groups.values())

    def read_runs(self, layer: int) -> list[list[tuple[Tensor, Tensor]]]:
        """Views of what a layer attends to, also where pages are shared.

        Returns:
            Per group in this layer: K and V of each place where its pages lie.
        """
        if self._reads:
            return [[self._gathered(layer, group)] for group, _ in self.slices[layer]]
        return [self._runs(layer, group) for group, _ in self.slices[layer]]

    def _runs(self, layer: int, group: HeadGroup) -> list[tuple[Tensor, Tensor]]:
        """K and V of a group's shared pages, run by run, then those of its buffers."""
        views = []
        for run in group.runs:
            first, last = run.pages.slot[[0, -1]].tolist()
            tokens = slice(first * self.page_tokens, (last + 1) * self.page_tokens)
            views.append((run.home.keys[layer][:, :, tokens], run.home.values[layer][:, :, tokens]))
        return [*views, (self._occupied(group, group.keys[layer]), self._occupied(group, group.values[layer]))]

    def _occupied(self, group: HeadGroup, buffer: Tensor) -> Tensor:
        return buffer[:, :, : group.own * self.page_tokens]

    def _take(self, group: HeadGroup, side: Literal["keys", "values"], layer: int, slots: np.ndarray) -> Tensor:
        """Copy K or V of pages out of a group, [batch, heads, pages * page_tokens, head_dim]."""
        return take(self._stored(group, side, layer), self._tokens(self._places(group, slots)))

    def _places(self, group: HeadGroup, slots: np.ndarray) -> np.ndarray:
        """Where pages lie in `_stored`."""
        return slots if self.apart else group.places(slots)

    def _stored(self, group: HeadGroup, side: Literal["keys", "values"], layer: int) -> Tensor:
        """K or V of a group: its area where the chunk lies apart, else its buffer, after a copy of shared pages."""
        if self.apart:
            keys, values = next((keys, values) for each, _, keys, values in self.read_stored(layer) if each is group)
            return keys if side == "keys" else values
        shared = [take(getattr(run.home, side)[layer], self._tokens(run.pages.slot)) for run in group.runs]
        return join([*shared, getattr(group, side)[layer]])

    def evict(self, keep_masks: Mapping[str, np.ndarray]) -> None:
        """Free pages. Moves no tensor.

        Args:
            keep_masks: Group -> which of its pages stay, boolean [pages]; those by which layers have settled.

        Raises:
            ValueError: A mask does not fit the pages of its group.
        """
        self._views.clear()
        for name, group in self.groups.items():
            keep = _checked(group, keep_masks[name])
            if self.apart and group.stays is None:
                self._stays(group, keep)
            group.keep(keep)
        self.apart = False

    def page_tables(self) -> PageTables:
        """Copies of all page tables, for `restore`."""
        return {
            name: (tuple(column.copy() for column in group.columns), group.place.copy(), group.runs)
            for name, group in self.groups.items()
        }

    def contents(self) -> list[Tensor]:
        """Copies of all buffers, for `restore` after a chunk that lay apart: it fills the places of what it dropped."""
        return [buffer.clone() for buffer in self._buffers()]

    def _buffers(self) -> Iterable[Tensor]:
        return (buffer for group in self.groups.values() for buffer in (*group.keys, *group.values))

    def restore(self, tables: PageTables, contents: Sequence[Tensor] = ()) -> None:
        """Go back to earlier page tables of this cache, as long as their pages have not been overwritten.

        Buffers that have grown since stay large.

        Args:
            tables: From `page_tables`.
            contents: From `contents` of the same moment; without, keys and values are not restored.
        """
        self._views.clear()
        for buffer, old in zip(self._buffers(), contents, strict=False):
            buffer[:, :, : old.shape[2]] = old
        for name, (columns, place, runs) in tables.items():
            group = self.groups[name]
            group.runs = runs
            grown = (0, group.capacity - len(columns[0]))
            group.frame, group.segment, group.position = (np.pad(c, grown, constant_values=FREE) for c in columns[:3])
            group.edited = np.pad(columns[3], grown)
            group.place = np.pad(place, grown, constant_values=FREE)

    def fork(self, share: bool = False) -> KVCache:
        """Begin a second cache between two chunks, with the same pages and what the policy remembers.

        Args:
            share: Freeze the pages and let both caches read them, in place of copying them. `restore` then cannot go
                back to page tables from before.
        """
        self._views.clear()
        new = type(self)(self.geometry, self.heads, self.segments, self.dtype, self.device)
        new.notes = deepcopy(self.notes)
        for name, group in self.groups.items():
            copy = new.groups[name]
            if share:
                group.freeze(self._page_bytes(group))
            copy.runs = group.runs
            copy.keys = [keys.clone() for keys in group.keys]
            copy.values = [values.clone() for values in group.values]
            copy.frame, copy.segment, copy.position, copy.edited = (column.copy() for column in group.columns)
            copy.place = group.place.copy()
        return new

    # What a pass reads, for policies that say so.

    def set_reads(self, reads: Mapping[str, Reads | None]) -> None:
        """Choose what the named groups read from now on; None reads every page as it is stored."""
        for name, each in reads.items():
            if each is None:
                self._reads.pop(name, None)
            else:
                self._reads[name] = each

    def pages_read(self, group: HeadGroup, head: int | None = None) -> Pages:
        """The pages that a pass reads of a group, in key order, at the positions where it reads them.

        Args:
            group: The group.
            head: One of its heads. Without, where heads read different pages, those that any of them reads.
        """
        reads = self._reads.get(group.name)
        return group.pages if reads is None else reads.of(group.pages, head)

    @property
    def reads(self) -> dict[str, Reads]:
        """What a pass reads of those head groups of which it does not read every page as it is stored."""
        return dict(self._reads)

    def parted(self, group: HeadGroup, layer: int) -> list[slice]:
        """Slices of a group's heads in a layer that read the same pages."""
        count = len(group.heads[layer])
        return [slice(at, at + 1) for at in range(count)] if self.reads_by_head(group) else [slice(0, count)]

    def reads_by_head(self, group: HeadGroup) -> bool:
        """Whether the heads of a group read different pages."""
        return group.name in self._reads and self._reads[group.name].by_head

    def tokens_read(self) -> dict[str, int]:
        """Key length of each head, by group."""
        return {
            name: self.page_tokens * (self._reads[name].index.shape[-1] if name in self._reads else group.live)
            for name, group in self.groups.items()
        }

    def log_weights(self, group: HeadGroup) -> np.ndarray | None:
        """Log weight of each page that is read of a group, float [pages]; None where all weigh alike."""
        reads = self._reads.get(group.name)
        return None if reads is None else reads.log_weight

    @property
    def weighted(self) -> bool:
        """Whether a pass weighs some pages more than others."""
        return any(reads.log_weight is not None for reads in self._reads.values())

    def _gathered(self, layer: int, group: HeadGroup) -> tuple[Tensor, Tensor]:
        """K at the positions where a pass reads them, and V: [batch, heads, tokens, head_dim] each."""
        stored = group.pages
        reads = self._reads.get(group.name) or Reads(np.arange(len(stored)))
        if reads.by_head:
            slots = stored.slot[reads.index[list(group.heads[layer])]]
            return self._by_head(group, "keys", layer, slots), self._by_head(group, "values", layer, slots)
        slots = stored.slot[reads.index]
        keys = self._take(group, "keys", layer, slots)
        if reads.position is not None:
            steps = reads.position - stored.position[reads.index]
            if steps.any():
                keys = self._shifted(keys.float(), steps).to(keys.dtype)
        return keys, self._take(group, "values", layer, slots)

    def _by_head(self, group: HeadGroup, side: Literal["keys", "values"], layer: int, slots: np.ndarray) -> Tensor:
        """Copy other pages of each head out of a group, slots [heads, n], as [batch, heads, n * page_tokens, dim]."""
        stored = self._stored(group, side, layer)
        batch, heads, tokens, size = stored.shape
        index = np.arange(heads)[:, None] * (tokens // self.page_tokens) + self._places(group, slots)
        pages = stored.reshape(batch, 1, -1, self.page_tokens * size)
        return take(pages, torch.from_numpy(index.reshape(-1)).to(self.device)).view(batch, heads, -1, size)

    def _shifted(self, keys: Tensor, steps: np.ndarray) -> Tensor:
        """Move keys of pages in time by `steps`, int [pages]: float32 [batch, heads, pages * page_tokens, head_dim]."""
        turns = rope_freqs_cis(steps.tolist(), 1, 1, self.geometry.head_dim, self.device)
        return _rotated(keys, turns.repeat_interleave(self.page_tokens, 0))

    def _freqs_cis(self, pages: Pages) -> Tensor:
        """RoPE of every token of pages, complex64 [pages * page_tokens, head_dim / 2]."""
        geometry = self.geometry
        whole = rope_freqs_cis(pages.position.tolist(), geometry.rows, geometry.cols, geometry.head_dim, self.device)
        split = whole.unflatten(0, (len(pages), self.segments, self.page_tokens))
        return split[torch.arange(len(pages)), torch.from_numpy(pages.segment)].flatten(0, 1)

    def stored_keys(self, layer: int, name: str, index: np.ndarray) -> Tensor:
        """Copy the keys of pages as they are stored: [batch, heads, pages, page_tokens, head_dim].

        Args:
            layer: attention layer.
            name: head group.
            index: rows of the group's `Pages`, int [pages].
        """
        group = self.groups[name]
        keys = self._take(group, "keys", layer, group.pages.slot[index])
        return keys.unflatten(2, (len(index), self.page_tokens))

    def unrotated(self, layer: int, name: str, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copy pages, with keys before RoPE.

        Args:
            layer: attention layer.
            name: head group.
            index: rows of the group's `Pages`, int [pages].

        Returns:
            K and V, float32 [batch, heads, pages, page_tokens, head_dim].
        """
        group = self.groups[name]
        pages = group.pages[index]
        keys = _rotated(self._take(group, "keys", layer, pages.slot).float(), self._freqs_cis(pages).conj())
        values = self._take(group, "values", layer, pages.slot).float()
        shape = (len(pages), self.page_tokens)
        return keys.unflatten(2, shape), values.unflatten(2, shape)

    def unrotated_query(self, name: str, frames: Sequence[int], query: Tensor) -> Tensor:
        """The chunk's queries before RoPE, float32, from those after it, [batch, heads, chunk tokens, head_dim]."""
        pages = self.groups[name].pages
        rows = pages.rows_of(frames)
        rows = rows[np.lexsort((pages.segment[rows], pages.frame[rows]))]
        return _rotated(query.float(), self._freqs_cis(pages[rows]).conj())

    def edit(self, layer: int, name: str, index: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Replace the content of pages; arguments as `unrotated` takes and returns them.

        Raises:
            ValueError: Other caches share pages of the group.
        """
        group = self.groups[name]
        if group.runs:
            raise ValueError("pages that are shared with another stream cannot be edited")
        pages = group.pages[index]
        tokens = self._tokens(group.place[pages.slot])
        put(group.keys[layer], tokens, _rotated(keys.flatten(2, 3), self._freqs_cis(pages)))
        put(group.values[layer], tokens, values.flatten(2, 3))
        group.edited[pages.slot] = True

    # The page tables in numbers.

    def tokens(self) -> dict[str, int]:
        """Cached tokens per group, which is the key length that its heads attend to during a chunk."""
        return {name: group.live * self.page_tokens for name, group in self.groups.items()}

    def frames(self) -> list[int]:
        """Latent frames with a cached page in any group, ascending."""
        return sorted({int(frame) for group in self.groups.values() for frame in group.pages.frame})

    def bytes(self) -> int:
        """Bytes of K and V in occupied pages, from the page tables."""
        return sum(group.live * self._page_bytes(group) for group in self.groups.values())

    def bytes_by_frame(self) -> dict[int, int]:
        """Bytes of K and V in occupied pages, by the latent frame that they are of."""
        found: dict[int, int] = {}
        for group in self.groups.values():
            for frame in group.pages.frame.tolist():
                found[frame] = found.get(frame, 0) + self._page_bytes(group)
        return found

    def allocated_bytes(self) -> int:
        """Bytes of the K and V buffers and of the area, those included that other caches read too."""
        return pinned_bytes([self])

    def _page_bytes(self, group: HeadGroup) -> int:
        heads = sum(map(len, group.heads))
        return 2 * self.geometry.batch * heads * self.page_tokens * self.geometry.head_dim * self.dtype.itemsize

    def keys_of(self, layer: int, name: str, frames: Sequence[int]) -> Tensor:
        """Copy the keys of whole frames.

        Args:
            layer: Attention layer.
            name: Head group.
            frames: Latent frames.

        Returns:
            Keys of [batch, heads, len(frames), tokens_per_frame, head_dim].

        Raises:
            KeyError: A page of one of the frames is not cached.
        """
        group = self.groups[name]
        pages = group.pages
        slot_of = {(f, s): slot for slot, f, s in zip(pages.slot, pages.frame, pages.segment, strict=True)}
        slots = np.array([slot_of[frame, segment] for frame in frames for segment in range(self.segments)])
        keys = self._take(group, "keys", layer, slots)
        return keys.unflatten(2, (len(frames), self.geometry.tokens_per_frame))

    # Rare changes: positions, head groups.

    def positions_of(self, frames: Sequence[int]) -> list[int]:
        """The temporal RoPE position at which each frame is stored; its number where it is not cached."""
        stored = self._positions()
        return [stored.get(frame, frame) for frame in frames]

    def _positions(self) -> dict[int, int]:
        pairs = ((group.pages.frame.tolist(), group.pages.position.tolist()) for group in self.groups.values())
        return {frame: position for columns in pairs for frame, position in zip(*columns, strict=True)}

    def reposition(self, frames: Collection[int], steps: int) -> None:
        """Store the keys of these latent frames `steps` positions later in time."""
        for group in self.groups.values():
            self._straighten(group, 0)
            pages = group.pages
            slots = pages.slot[pages.rows_of(frames)]
            tokens = self._tokens(group.place[slots])
            for keys in group.keys:
                put(keys, tokens, self._shifted(take(keys, tokens).float(), np.full(len(slots), steps)))
            group.position[slots] += steps

    def regrouped(self, groups: Mapping[str, Heads], segments: int, dtype: torch.dtype | None = None) -> KVCache:
        """Copy the cache into other head groups, page sizes or types, in buffers of exactly the size that is needed.

        A new group has a page when all of its heads, in every layer, had all of its tokens before: splitting a group
        loses nothing, joining two keeps what both have.

        Args:
            groups: The new groups, name -> heads per layer.
            segments: Pages per frame of the new cache.
            dtype: Of the new buffers; by default that of this cache.

        Returns:
            The new cache.
        """
        new = type(self)(self.geometry, groups, segments, dtype or self.dtype, self.device)
        new.notes = dict(self.notes)
        for group in self.groups.values():
            self._straighten(group, 0)
        frames = np.array(self.frames(), np.int64)
        positions = np.array(self.positions_of(frames.tolist()), np.int64)
        tokens = {
            name: self._token_table(group, frames).reshape(len(frames), segments, new.page_tokens)
            for name, group in self.groups.items()
        }
        for group in new.groups.values():
            sources = [[self._source(layer, head) for head in heads] for layer, heads in enumerate(group.heads)]
            names = {source.name for heads in sources for source, _ in heads}
            if not names:
                continue
            cached = np.all([tokens[name] != FREE for name in names], axis=0).all(-1)
            at, group.segment = np.nonzero(cached)
            group.frame = frames[at]
            group.position = positions[at]
            group.edited = np.zeros(len(at), bool)
            group.place = np.arange(len(at))
            index = {name: torch.from_numpy(tokens[name][cached].reshape(-1)).to(self.device) for name in names}
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
        """Place of each token of `frames` in the group's buffers, or `FREE`: int [frames, tokens_per_frame]."""
        pages = group.pages
        table = np.full((len(frames), self.segments, self.page_tokens), FREE)
        first = group.place[pages.slot][:, None] * self.page_tokens
        table[np.searchsorted(frames, pages.frame), pages.segment] = first + np.arange(self.page_tokens)
        return table.reshape(len(frames), self.geometry.tokens_per_frame)

    def _tokens(self, slots: np.ndarray) -> Tensor:
        index = slots[:, None] * self.page_tokens + np.arange(self.page_tokens)
        return torch.from_numpy(index.reshape(-1)).to(self.device)

    def _add_slots(self, group: HeadGroup, capacity: int) -> None:
        """Let the page table of a group have so many slots."""
        more = np.full(capacity - group.capacity, FREE)
        group.frame = np.concatenate([group.frame, more])
        group.segment = np.concatenate([group.segment, more])
        group.position = np.concatenate([group.position, more])
        group.edited = np.concatenate([group.edited, np.zeros(len(more), bool)])
        group.place = np.concatenate([group.place, more])

    def _grow(self, group: HeadGroup, pages: int) -> None:
        """Let the buffers of a group hold at least so many pages."""
        for buffers in (group.keys, group.values):
            for layer, buffer in enumerate(buffers):
                old = buffer.shape[2]
                if old < pages * self.page_tokens:
                    buffers[layer] = self._empty(buffer.shape[1], pages * self.page_tokens)
                    buffers[layer][:, :, :old] = buffer

    def _move(self, group: HeadGroup, source: np.ndarray, target: np.ndarray) -> None:
        """Move pages to other slots; where chunks lie apart, their content stays where it is."""
        if self.apart:
            group.place[target] = group.place[source]
        else:
            self._copy_contents(group, source, target)
            group.place[target] = target
        for column in group.columns:
            column[target] = column[source]
        group.frame[source] = FREE

    def _copy_contents(self, group: HeadGroup, source: np.ndarray, target: np.ndarray) -> None:
        """Copy keys and values from slots to other slots."""
        old = self._tokens(source)
        new = self._tokens(target)
        for buffer in (*group.keys, *group.values):
            put(buffer, new, take(buffer, old))


def unique_bytes(caches: Iterable[KVCache]) -> int:
    """Bytes of K and V in the pages of several caches, each shared page counted once."""
    caches = list(caches)
    own = sum(group.own * cache._page_bytes(group) for cache in caches for group in cache.groups.values())
    slots: dict[Frozen, set[int]] = {}
    for run in _runs_of(caches):
        slots.setdefault(run.home, set()).update(run.pages.slot.tolist())
    return own + sum(len(pages) * home.page_bytes for home, pages in slots.items())


def pinned_bytes(caches: Iterable[KVCache]) -> int:
    """Bytes of the K and V buffers of several caches, each shared one counted once and as a whole."""
    caches = list(caches)
    buffers = [buffer for cache in caches for buffer in (*cache._buffers(), *cache._area)]
    return sum(buffer.nbytes for buffer in buffers) + sum(home.bytes for home in {run.home for run in _runs_of(caches)})


def _checked(group: HeadGroup, mask: np.ndarray) -> np.ndarray:
    """A mask of a group's pages. Raises ValueError when it does not fit them."""
    mask = np.asarray(mask, bool)
    if mask.shape != (group.live,):
        raise ValueError(f"group {group.name!r} has {group.live} pages, its mask has shape {mask.shape}")
    return mask


def _runs_of(caches: Iterable[KVCache]) -> list[Run]:
    return [run for cache in caches for group in cache.groups.values() for run in group.runs]


def _rotated(keys: Tensor, turns: Tensor) -> Tensor:
    """Rotate keys, float32 [batch, heads, tokens, head_dim], by complex64 [tokens, head_dim / 2]."""
    pairs = torch.view_as_complex(keys.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)
