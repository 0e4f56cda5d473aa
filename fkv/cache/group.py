"""One head group: its page table, the buffers that the table describes, and pages that it shares with other caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fkv.kernels import put, take
from fkv.pages import Heads, Pages

FREE = -1  # the frame number of a free slot
GROWTH = 1.125  # a buffer grows at least by this factor, so that a cache without eviction is not copied for every chunk
MOST_RUNS = 4  # shared pages of a group lie in at most so many places while a chunk is generated


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


PageTable = tuple[tuple[np.ndarray, ...], np.ndarray, tuple[Run, ...]]
"""The columns of a page table, arrays [slots] with `FREE` for the frame of slots without a page; the place of each
page; the shared pages."""


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
        page_tokens: Tokens of a page.
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
    page_tokens: int
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

    # The page table.

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
    def page_bytes(self) -> int:
        """Bytes of K and V of a page in all layers."""
        batch, _, _, head_dim = self.keys[0].shape
        return 2 * batch * sum(map(len, self.heads)) * self.page_tokens * head_dim * self.keys[0].itemsize

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

    def places(self, slots: np.ndarray) -> np.ndarray:
        """Where pages lie, by their slots in `pages`: shared ones first, then those of the buffers."""
        if not self.runs:
            return self.place[slots]
        places = slots.copy()
        own = slots >= self.shared
        places[own] = self.shared + self.place[slots[own] - self.shared]
        return places

    def tokens_of(self, places: np.ndarray) -> Tensor:
        """The tokens of pages in these places, int64 [places * page_tokens]."""
        index = places[:, None] * self.page_tokens + np.arange(self.page_tokens)
        return torch.from_numpy(index.reshape(-1)).to(self.keys[0].device)

    def occupied(self, buffer: Tensor) -> Tensor:
        """The part of a buffer that has pages while a chunk is generated."""
        return buffer[:, :, : self.own * self.page_tokens]

    def views(self, layer: int) -> list[tuple[Tensor, Tensor]]:
        """K and V of the shared pages, run by run, then those of the buffers."""
        views = []
        for run in self.runs:
            first, last = run.pages.slot[[0, -1]].tolist()
            tokens = slice(first * self.page_tokens, (last + 1) * self.page_tokens)
            views.append((run.home.keys[layer][:, :, tokens], run.home.values[layer][:, :, tokens]))
        return [*views, (self.occupied(self.keys[layer]), self.occupied(self.values[layer]))]

    # A chunk comes.

    def reserve(self, frames: Sequence[int], positions: Sequence[int], segments: int, apart: bool) -> None:
        """Give slots to the pages of a chunk; afterwards occupied slots are a prefix. Arguments as in `KVCache.begin`.

        Free slots are reused first; a buffer grows only when they do not suffice (`GROWTH`). When fewer pages are
        occupied than before, the last ones move down into the remaining holes, which a steady stream never needs.
        """
        wanted = len(frames) * segments
        self.stays = None
        if self.runs:
            self.straighten()
        if not apart:
            self._spread()
        live = self.own + wanted
        slots = self._free_slots(wanted, apart)
        self.frame[slots] = np.repeat(np.asarray(frames), segments)
        self.segment[slots] = np.tile(np.arange(segments), len(frames))
        self.position[slots] = np.repeat(np.asarray(positions), segments)
        self.edited[slots] = False
        self.place[slots] = FREE if apart else slots
        tail = live + np.flatnonzero(self.frame[live:] != FREE)
        if len(tail):
            holes = np.flatnonzero(self.frame[:live] == FREE)
            self._move(tail, holes, apart)
            slots[np.isin(slots, tail)] = holes[np.searchsorted(tail, slots[np.isin(slots, tail)])]
        self._write_to(slots)

    def aim(self, frames: Sequence[int]) -> None:
        """Let passes write to the pages of these frames; not to shared pages.

        Where there are none, as for silenced heads, passes still write to those of the chunk.
        """
        pages = self.own_pages[self.own_pages.rows_of(frames)]
        if len(pages):
            self._write_to(pages.slot[np.lexsort((pages.segment, pages.frame))])

    def _write_to(self, slots: np.ndarray) -> None:
        """Let passes write to these slots, in place: a captured pass reads the same tensor."""
        index = self.tokens_of(slots)
        if self.write_index.shape != index.shape:
            self.write_index = index
        self.write_index.copy_(index)

    def _free_slots(self, wanted: int, apart: bool = False) -> np.ndarray:
        """The first free slots. The table grows to have them and, unless the chunk lies apart, so do the buffers."""
        live = self.own + wanted
        if live > self.capacity:
            self._add_slots(max(live, int(self.capacity * GROWTH)))
        if not apart:
            self._grow(self.capacity)
        return np.flatnonzero(self.frame == FREE)[:wanted]

    def _add_slots(self, capacity: int) -> None:
        """Let the page table have so many slots."""
        more = np.full(capacity - self.capacity, FREE)
        self.frame = np.concatenate([self.frame, more])
        self.segment = np.concatenate([self.segment, more])
        self.position = np.concatenate([self.position, more])
        self.edited = np.concatenate([self.edited, np.zeros(len(more), bool)])
        self.place = np.concatenate([self.place, more])

    def _grow(self, pages: int) -> None:
        """Let the buffers hold at least so many pages."""
        for buffers in (self.keys, self.values):
            for layer, buffer in enumerate(buffers):
                old = buffer.shape[2]
                if old < pages * self.page_tokens:
                    buffers[layer] = self._resized(buffer, pages)
                    buffers[layer][:, :, :old] = buffer

    def _resized(self, buffer: Tensor, pages: int) -> Tensor:
        """An empty buffer like another, of so many pages."""
        batch, heads, _, head_dim = buffer.shape
        return buffer.new_empty(batch, heads, pages * self.page_tokens, head_dim)

    def _spread(self) -> None:
        """Let every page lie at its slot, as a chunk needs it that is written among them."""
        slots = np.flatnonzero(self.frame != FREE)
        if (self.place[slots] == slots).all():
            return
        source, target = self.tokens_of(self.place[slots]), self.tokens_of(slots)
        for buffers in (self.keys, self.values):
            for layer, buffer in enumerate(buffers):
                buffers[layer] = self._resized(buffer, self.capacity)
                put(buffers[layer], target, take(buffer, source))
        self.place[slots] = slots

    def _move(self, source: np.ndarray, target: np.ndarray, apart: bool) -> None:
        """Move pages to other slots; where the chunk lies apart, their content stays where it is."""
        if apart:
            self.place[target] = self.place[source]
        else:
            self._copy_contents(self.tokens_of(source), self.tokens_of(target))
            self.place[target] = target
        for column in self.columns:
            column[target] = column[source]
        self.frame[source] = FREE

    def _copy_contents(self, source: Tensor, target: Tensor) -> None:
        """Copy keys and values from tokens of the buffers to others."""
        if source.is_meta:
            return  # nothing to copy, and the first copy by index there imports for seconds
        for buffer in (*self.keys, *self.values):
            put(buffer, target, take(buffer, source))

    # A chunk has been generated.

    def checked(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the pages. Raises ValueError when it does not fit them."""
        mask = np.asarray(mask, bool)
        if mask.shape != (self.live,):
            raise ValueError(f"group {self.name!r} has {self.live} pages, its mask has shape {mask.shape}")
        return mask

    def settle(self, mask: np.ndarray) -> Stays:
        """Choose places in the buffers for the pages of the chunk that stay: those of pages that do not."""
        mask = self.checked(mask)
        slots = self.own_pages.slot[mask]
        new = slots[self.place[slots] == FREE]
        self._grow(len(slots))
        self.place[new] = np.setdiff1d(np.arange(len(slots)), self.place[slots])[: len(new)]
        self.stays = Stays(mask, self.tokens_of(new), self.tokens_of(self.place[new]))
        return self.stays

    def keep(self, mask: np.ndarray) -> None:
        """Free the pages, in the order of `pages`, that the mask does not keep."""
        *shared, own = np.split(mask, np.cumsum([len(run.pages) for run in self.runs], dtype=int))
        self.runs = tuple(Run(r.home, r.pages[kept]) for r, kept in zip(self.runs, shared, strict=True) if kept.any())
        self.frame[self.own_pages.slot[~own]] = FREE

    # Pages that other caches read too.

    def freeze(self) -> None:
        """Make all pages shared ones, and the buffers empty."""
        if self.own:
            home = Frozen(tuple(self.keys), tuple(self.values), self.page_bytes)
            pages = self.own_pages
            self.runs += (Run(home, replace(pages, slot=self.place[pages.slot])),)
        self.keys, self.values = ([buffer[:, :, :0].clone() for buffer in side] for side in (self.keys, self.values))
        self.frame, self.segment, self.position, self.edited = (column[:0] for column in self.columns)
        self.place = self.place[:0]

    def straighten(self, most: int = MOST_RUNS) -> None:
        """Let the pages of each run lie one after another. The smallest of more than `most` runs are copied instead."""
        runs = [part for run in self.runs for part in run.contiguous()]
        shared = sorted(runs, key=lambda run: -len(run.pages))[:most]
        self.runs = tuple(run for run in runs if run in shared)
        for run in runs:
            if run not in shared:
                self._copy_in(run)

    def _copy_in(self, run: Run) -> None:
        """Copy the pages of a run to the group's own buffers."""
        slots = self._free_slots(len(run.pages))
        source, target = self.tokens_of(run.pages.slot), self.tokens_of(slots)
        for buffers, frozen in ((self.keys, run.home.keys), (self.values, run.home.values)):
            for buffer, shared in zip(buffers, frozen, strict=True):
                put(buffer, target, take(shared, source))
        for column, shared_column in zip(self.columns, run.pages.columns, strict=True):
            column[slots] = shared_column
        self.place[slots] = slots

    # Copies.

    def copy_from(self, other: HeadGroup) -> None:
        """Take over copies of everything that another group of the same heads has; runs are shared."""
        self.runs = other.runs
        self.keys = [keys.clone() for keys in other.keys]
        self.values = [values.clone() for values in other.values]
        self.frame, self.segment, self.position, self.edited = (column.copy() for column in other.columns)
        self.place = other.place.copy()

    def page_table(self) -> PageTable:
        """A copy of the page table, for `restore`."""
        return tuple(column.copy() for column in self.columns), self.place.copy(), self.runs

    def restore(self, table: PageTable) -> None:
        """Go back to an earlier page table."""
        columns, place, self.runs = table
        grown = (0, self.capacity - len(place))
        self.frame, self.segment, self.position = (np.pad(c, grown, constant_values=FREE) for c in columns[:3])
        self.edited = np.pad(columns[3], grown)
        self.place = np.pad(place, grown, constant_values=FREE)
