"""Paged storage of keys and values. Storage only: policies decide which pages stay, head roles which head is which.

Keys are stored after RoPE, so their order in memory does not matter to attention. The K and V of a head group in one
layer share one preallocated buffer, which the group's page table describes (`fkv.pages`). A chunk is written straight
into free pages, once per pass; evicting pages changes the page table alone. Occupied pages form a prefix of the buffer
while a chunk is generated, so attention reads a plain view: nothing is gathered, rolled or concatenated. After a fork
that shares pages, a group also reads **runs**: pages in buffers that are frozen since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .kernels import join, put, rope_freqs_cis, take
from .pages import FREE, Frozen, Geometry, HeadGroup, Heads, Pages, PageTables, Reads, Run

GROWTH = 1.125  # a buffer grows at least by this factor, so that a cache without eviction is not copied for every chunk
MOST_RUNS = 4  # shared pages of a group lie in at most so many places while a chunk is generated


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
        self._views: dict[int, list[tuple[HeadGroup, slice, Tensor, Tensor]]] = {}
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

    def heads_of(self, layer: int, name: str) -> slice:
        """The slice of `order` that a group has in a layer."""
        return next(heads for group, heads in self.slices[layer] if group.name == name)

    # The life of a chunk: begin, then write and read once per pass and layer, then evict.

    def begin(self, frames: Sequence[int], positions: Sequence[int] | None = None) -> None:
        """Reserve pages for a chunk in every group; afterwards occupied pages are a prefix of the buffers.

        Free slots are reused first; a buffer grows only when they do not suffice (`GROWTH`). When fewer pages are
        occupied than before, the last ones move down into the remaining holes, which a steady stream never needs.
        `opening` says whether nothing was cached before this chunk.

        Args:
            frames: Latent frames of the chunk.
            positions: Their temporal RoPE positions; by default their numbers.
        """
        wanted = len(frames) * self.segments
        self.opening = not self.frames()
        self._views.clear()
        self._reads.clear()
        for group in self.groups.values():
            if group.runs:
                self._straighten(group)
            live = group.own + wanted
            slots = self._free_slots(group, wanted)
            group.frame[slots] = np.repeat(np.asarray(frames), self.segments)
            group.segment[slots] = np.tile(np.arange(self.segments), len(frames))
            group.position[slots] = np.repeat(np.asarray(positions or frames), self.segments)
            group.edited[slots] = False
            tail = live + np.flatnonzero(group.frame[live:] != FREE)
            if len(tail):
                holes = np.flatnonzero(group.frame[:live] == FREE)
                self._move(group, tail, holes)
                slots[np.isin(slots, tail)] = holes[np.searchsorted(tail, slots[np.isin(slots, tail)])]
            index = self._tokens(slots)
            if group.write_index.shape != index.shape:
                group.write_index = index
            group.write_index.copy_(index)

    def _free_slots(self, group: HeadGroup, wanted: int) -> np.ndarray:
        """The first free slots of a group's buffers, which grow where these do not suffice."""
        live = group.own + wanted
        if live > group.capacity:
            self._grow(group, max(live, int(group.capacity * GROWTH)))
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

    def aim(self, frames: Sequence[int]) -> None:
        """Let passes write to the pages of these cached frames, in place of what they hold; not to shared pages."""
        for group in self.groups.values():
            pages = group.own_pages[group.own_pages.rows_of(frames)]
            in_order = np.lexsort((pages.segment, pages.frame))
            group.write_index.copy_(self._tokens(pages.slot[in_order]))

    def memory_key(self) -> tuple[object, ...]:
        """A key that is equal for passes that read and write the same memory, as a CUDA graph needs it."""
        if self._reads or self.select:
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

    def read(self, layer: int) -> list[tuple[HeadGroup, slice, Tensor, Tensor]]:
        """Views of what a layer attends to.

        Returns:
            Per group in this layer: a group, its slice of `order`, K and V of [batch, heads, cached tokens, head_dim].
        """
        if self._reads:
            return [(group, heads, *self._gathered(layer, group)) for group, heads in self.slices[layer]]
        return self.read_stored(layer)

    def read_stored(self, layer: int) -> list[tuple[HeadGroup, slice, Tensor, Tensor]]:
        """Like `read`, every page as it is stored. Shared pages are copied."""
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

    @property
    def shares_pages(self) -> bool:
        """Whether some pages lie in buffers that other caches read too."""
        return any(group.runs for group in self.groups.values())

    def read_runs(self, layer: int) -> list[list[tuple[Tensor, Tensor]]]:
        """Views of what a layer attends to, where a cache shares pages.

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
        return take(self._stored(group, side, layer), self._tokens(slots))

    def _stored(self, group: HeadGroup, side: Literal["keys", "values"], layer: int) -> Tensor:
        """K or V of a group slot by slot: its buffer, after a copy of the pages that are shared."""
        shared = [take(getattr(run.home, side)[layer], self._tokens(run.pages.slot)) for run in group.runs]
        return join([*shared, getattr(group, side)[layer]])

    def evict(self, keep_masks: Mapping[str, np.ndarray]) -> None:
        """Free pages. Moves no tensor.

        Args:
            keep_masks: Group -> which of its pages stay, boolean [pages].

        Raises:
            ValueError: A mask does not fit the pages of its group.
        """
        self._views.clear()
        for name, group in self.groups.items():
            keep = np.asarray(keep_masks[name], bool)
            pages = group.pages
            if keep.shape != (len(pages),):
                raise ValueError(f"group {name!r} has {len(pages)} pages, its mask has shape {keep.shape}")
            group.keep(keep)

    def page_tables(self) -> PageTables:
        """Copies of all page tables, for `restore`."""
        return {
            name: (tuple(column.copy() for column in group.columns), group.runs) for name, group in self.groups.items()
        }

    def restore(self, tables: PageTables) -> None:
        """Go back to earlier page tables of this cache, as long as their pages have not been overwritten.

        Keys and values are not restored, and buffers that have grown since stay large.
        """
        self._views.clear()
        for name, (columns, runs) in tables.items():
            group = self.groups[name]
            group.runs = runs
            grown = (0, group.capacity - len(columns[0]))
            group.frame, group.segment, group.position = (np.pad(c, grown, constant_values=FREE) for c in columns[:3])
            group.edited = np.pad(columns[3], grown)

    def fork(self, share: bool = False) -> KVCache:
        """Begin a second cache between two chunks, with the same pages and what the policy remembers.

        Args:
            share: Freeze the pages and let both caches read them, in place of copying them. `restore` then cannot go
                back to page tables from before.
        """
        self._views.clear()
        groups = {name: group.heads for name, group in self.groups.items()}
        new = type(self)(self.geometry, groups, self.segments, self.dtype, self.device)
        new.notes = deepcopy(self.notes)
        for name, group in self.groups.items():
            copy = new.groups[name]
            if share:
                group.freeze(self._page_bytes(group))
            copy.runs = group.runs
            copy.keys = [keys.clone() for keys in group.keys]
            copy.values = [values.clone() for values in group.values]
            copy.frame, copy.segment, copy.position, copy.edited = (column.copy() for column in group.columns)
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
        index = np.arange(heads)[:, None] * (tokens // self.page_tokens) + slots
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
        tokens = self._tokens(pages.slot)
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
        """Bytes of the K and V buffers, from the page tables, those included that other caches read too."""
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
            tokens = self._tokens(slots)
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
        first = pages.slot[:, None] * self.page_tokens
        table[np.searchsorted(frames, pages.frame), pages.segment] = first + np.arange(self.page_tokens)
        return table.reshape(len(frames), self.geometry.tokens_per_frame)

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
        group.frame = np.concatenate([group.frame, more])
        group.segment = np.concatenate([group.segment, more])
        group.position = np.concatenate([group.position, more])
        group.edited = np.concatenate([group.edited, np.zeros(len(more), bool)])

    def _move(self, group: HeadGroup, source: np.ndarray, target: np.ndarray) -> None:
        self._copy_contents(group, source, target)
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
    own = sum(group.capacity * cache._page_bytes(group) for cache in caches for group in cache.groups.values())
    return own + sum(home.capacity * home.page_bytes for home in {run.home for run in _runs_of(caches)})


def _runs_of(caches: Iterable[KVCache]) -> list[Run]:
    return [run for cache in caches for group in cache.groups.values() for run in group.runs]


def _rotated(keys: Tensor, turns: Tensor) -> Tensor:
    """Rotate keys, float32 [batch, heads, tokens, head_dim], by complex64 [tokens, head_dim / 2]."""
    pairs = torch.view_as_complex(keys.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)
