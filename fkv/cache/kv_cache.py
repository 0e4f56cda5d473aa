"""`KVCache`: the keys and values of one stream; see `fkv.cache`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fkv.kernels import join, put, take
from fkv.pages import Geometry, Heads, Pages, Reads

from .area import Area, View
from .group import Frozen, HeadGroup, PageTable, Run
from .reading import Reading
from .rotation import freqs_cis_of, rotated, shifted


class KVCache:
    """The cache of one stream.

    Args:
        geometry: Sizes of the model and of the token grid.
        groups: Group name -> heads per layer; together they hold every head of every layer exactly once.
        segments: Pages per frame; divides the tokens of a frame.
        dtype: Of the buffers; fp8 where the attention kernels convert what they read.
        device: Of the buffers.

    Attributes:
        groups: Name -> head group.
        order: Heads per layer in storage order, in which every group is a contiguous slice.
        slices: Per layer the groups that have heads in it, and their slices of `order`.
        opening: Whether nothing was cached before the current chunk.
        apart: Whether the current chunk lies apart from the buffers.
        keep: Says what stays of a group, during the pass that fills the buffers from a chunk that lies apart.
        reading: What passes read, where the policy says so.
        select: Called with layer and queries before a layer reads, where the policy asks for it.
        notes: What the policy remembers about this cache from chunk to chunk.
        derived: What the policy computes from this cache. No other cache takes it over.

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
                self.page_tokens,
                keys=[self.empty(len(layer), 0) for layer in heads],
                values=[self.empty(len(layer), 0) for layer in heads],
            )
            for name, heads in groups.items()
        }
        self.order: Heads = tuple(
            tuple(head for heads in groups.values() for head in heads[layer]) for layer in range(geometry.layers)
        )
        self.slices = [self._slices(layer) for layer in range(geometry.layers)]
        self.opening = True
        self.apart = False
        self.keep: Callable[[str], np.ndarray] | None = None
        self.reading = Reading()
        self.select: Callable[[int, Tensor], None] | None = None
        self.notes: dict[str, Any] = {}
        self.derived: dict[Any, Any] = {}
        self._area = Area(self.empty(geometry.heads, 0))
        self._views: dict[int, list[View]] = {}

    def empty(self, heads: int, tokens: int) -> Tensor:
        """A buffer whose content is not set, [batch, heads, tokens, head_dim]."""
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
        """Reserve pages for a chunk in every group, see `HeadGroup.reserve`.

        Args:
            frames: Latent frames of the chunk.
            positions: Their temporal RoPE positions; by default their numbers.
            apart: Let the chunk lie apart from the buffers, which then only grow to what stays after it. Its last pass
                has to `settle`. Not where pages are shared.
        """
        self.opening = not self.frames()
        self.apart = apart and not self.shares_pages
        self._views.clear()
        self.reading.chosen.clear()
        for group in self.groups.values():
            group.reserve(frames, positions or frames, self.segments, self.apart)
        if self.apart:
            self._area.prepare(self.groups.values())

    def aim(self, frames: Sequence[int]) -> None:
        """Let passes write to the pages of these cached frames, in place of what they hold; not to shared pages."""
        for group in self.groups.values():
            group.aim(frames)

    def memory_key(self) -> tuple[object, ...]:
        """A key that is equal for passes that read and write the same memory, as a CUDA graph needs it."""
        if self.reading.chosen or self.select or self.apart:
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
            views = self._area.views(layer, self.slices[layer])
            return [(keys, values, group.write_index) for group, _, keys, values in views]
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
        self._area.settle(layer, self.slices[layer], keep)

    def read(self, layer: int) -> list[View]:
        """Views of what a layer attends to.

        Returns:
            Per group in this layer: a group, its slice of `order`, K and V of [batch, heads, cached tokens, head_dim].
        """
        if self.reading.chosen:
            return [(group, heads, *self._gathered(layer, group)) for group, heads in self.slices[layer]]
        return self.read_stored(layer)

    def read_stored(self, layer: int) -> list[View]:
        """Like `read`, every page as it is stored. Shared pages are copied, and all where a chunk lies apart."""
        if self.apart:
            return self._area.filled(layer, self.slices[layer])
        if self.shares_pages:
            sides = [tuple(zip(*group.views(layer), strict=True)) for group, _ in self.slices[layer]]
            return [
                (group, heads, join(keys), join(values))
                for (group, heads), (keys, values) in zip(self.slices[layer], sides, strict=True)
            ]
        if layer not in self._views:
            self._views[layer] = [
                (group, heads, group.occupied(group.keys[layer]), group.occupied(group.values[layer]))
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
        if self.reading.chosen or self.apart:
            return [[(keys, values)] for _, _, keys, values in self.read(layer)]
        return [group.views(layer) for group, _ in self.slices[layer]]

    def evict(self, keep_masks: Mapping[str, np.ndarray]) -> None:
        """Free pages. Moves no tensor.

        Args:
            keep_masks: Group -> which of its pages stay, boolean [pages]; those by which layers have settled.

        Raises:
            ValueError: A mask does not fit the pages of its group.
        """
        self._views.clear()
        for name, group in self.groups.items():
            keep = group.checked(keep_masks[name])
            if self.apart and group.stays is None:
                group.settle(keep)
            group.keep(keep)
        self.apart = False

    # Copies of the whole cache.

    def page_tables(self) -> dict[str, PageTable]:
        """Copies of all page tables, for `restore`."""
        return {name: group.page_table() for name, group in self.groups.items()}

    def contents(self) -> list[Tensor]:
        """Copies of all buffers, for `restore` after a chunk that lay apart: it fills the places of what it dropped."""
        return [buffer.clone() for buffer in self._buffers()]

    def _buffers(self) -> Iterable[Tensor]:
        return (buffer for group in self.groups.values() for buffer in (*group.keys, *group.values))

    def restore(self, tables: Mapping[str, PageTable], contents: Sequence[Tensor] = ()) -> None:
        """Go back to earlier page tables of this cache, as long as their pages have not been overwritten.

        Buffers that have grown since stay large.

        Args:
            tables: From `page_tables`.
            contents: From `contents` of the same moment; without, keys and values are not restored.
        """
        self._views.clear()
        for buffer, old in zip(self._buffers(), contents, strict=False):
            buffer[:, :, : old.shape[2]] = old
        for name, table in tables.items():
            self.groups[name].restore(table)

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
            if share:
                group.freeze()
            new.groups[name].copy_from(group)
        return new

    def only(self, masks: Mapping[str, np.ndarray]) -> KVCache:
        """A view of the cache in which groups have these of their pages alone, to look at; only `edit` changes both.

        Args:
            masks: Group -> the pages that it has in the view, bool [pages].
        """
        view = copy(self)
        view.groups = {name: replace(group, frame=group.frame.copy()) for name, group in self.groups.items()}
        for name, group in view.groups.items():
            group.keep(masks[name])
        view.slices = [view._slices(layer) for layer in range(self.geometry.layers)]
        return view

    # Copies of pages.

    def _gathered(self, layer: int, group: HeadGroup) -> tuple[Tensor, Tensor]:
        """K at the positions where a pass reads them, and V: [batch, heads, tokens, head_dim] each."""
        stored = group.pages
        reads = self.reading.chosen.get(group.name) or Reads(np.arange(len(stored)))
        if reads.by_head:
            slots = stored.slot[reads.index[list(group.heads[layer])]]
            return self._by_head(group, "keys", layer, slots), self._by_head(group, "values", layer, slots)
        slots = stored.slot[reads.index]
        keys = self._take(group, "keys", layer, slots)
        if reads.position is not None:
            steps = reads.position - stored.position[reads.index]
            if steps.any():
                keys = shifted(keys.float(), steps, self.page_tokens).to(keys.dtype)
        return keys, self._take(group, "values", layer, slots)

    def _take(self, group: HeadGroup, side: Literal["keys", "values"], layer: int, slots: np.ndarray) -> Tensor:
        """Copy K or V of pages out of a group, [batch, heads, pages * page_tokens, head_dim]."""
        return take(self._stored(group, side, layer), group.tokens_of(self._places(group, slots)))

    def _by_head(self, group: HeadGroup, side: Literal["keys", "values"], layer: int, slots: np.ndarray) -> Tensor:
        """Copy other pages of each head out of a group, slots [heads, n], as [batch, heads, n * page_tokens, dim]."""
        stored = self._stored(group, side, layer)
        batch, heads, tokens, size = stored.shape
        index = np.arange(heads)[:, None] * (tokens // self.page_tokens) + self._places(group, slots)
        pages = stored.reshape(batch, 1, -1, self.page_tokens * size)
        return take(pages, torch.from_numpy(index.reshape(-1)).to(self.device)).view(batch, heads, -1, size)

    def _stored(self, group: HeadGroup, side: Literal["keys", "values"], layer: int) -> Tensor:
        """K or V of a group: its area where the chunk lies apart, else its buffer, after a copy of shared pages."""
        if self.apart:
            keys, values = next((keys, values) for each, _, keys, values in self.read_stored(layer) if each is group)
            return keys if side == "keys" else values
        shared = [take(getattr(run.home, side)[layer], group.tokens_of(run.pages.slot)) for run in group.runs]
        return join([*shared, getattr(group, side)[layer]])

    def _freqs_cis(self, pages: Pages) -> Tensor:
        """RoPE of every token of pages, complex64 [pages * page_tokens, head_dim / 2]."""
        return freqs_cis_of(pages, self.geometry, self.segments, self.device)

    def _places(self, group: HeadGroup, slots: np.ndarray) -> np.ndarray:
        """Where pages lie in `_stored`."""
        return slots if self.apart else group.places(slots)

    def stored_keys(self, layer: int, name: str, index: np.ndarray) -> Tensor:
        """Copy the keys of pages as they are stored: [batch, heads, pages, page_tokens, head_dim].

        Args:
            layer: Attention layer.
            name: Head group.
            index: Rows of the group's `Pages`, int [pages].
        """
        group = self.groups[name]
        keys = self._take(group, "keys", layer, group.pages.slot[index])
        return keys.unflatten(2, (len(index), self.page_tokens))

    def unrotated(self, layer: int, name: str, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copy pages, with keys before RoPE.

        Args:
            layer: Attention layer.
            name: Head group.
            index: Rows of the group's `Pages`, int [pages].

        Returns:
            K and V, float32 [batch, heads, pages, page_tokens, head_dim].
        """
        group = self.groups[name]
        pages = group.pages[index]
        keys = rotated(
            self._take(group, "keys", layer, pages.slot).float(),
            self._freqs_cis(pages).conj(),
        )
        values = self._take(group, "values", layer, pages.slot).float()
        shape = (len(pages), self.page_tokens)
        return keys.unflatten(2, shape), values.unflatten(2, shape)

    def unrotated_query(self, name: str, frames: Sequence[int], query: Tensor) -> Tensor:
        """The chunk's queries before RoPE, float32, from those after it, [batch, heads, chunk tokens, head_dim]."""
        pages = self.groups[name].pages
        rows = pages.rows_of(frames)
        rows = rows[np.lexsort((pages.segment[rows], pages.frame[rows]))]
        return rotated(query.float(), self._freqs_cis(pages[rows]).conj())

    def edit(self, layer: int, name: str, index: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Replace the content of pages; arguments as `unrotated` takes and returns them.

        Raises:
            ValueError: Other caches share pages of the group.
        """
        group = self.groups[name]
        if group.runs:
            raise ValueError("pages that are shared with another stream cannot be edited")
        pages = group.pages[index]
        tokens = group.tokens_of(group.place[pages.slot])
        put(
            group.keys[layer],
            tokens,
            rotated(keys.flatten(2, 3), self._freqs_cis(pages)),
        )
        put(group.values[layer], tokens, values.flatten(2, 3))
        group.edited[pages.slot] = True

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

    # The page tables in numbers.

    def tokens_read(self) -> dict[str, int]:
        """Key length of each head in a pass, by group."""
        chosen = self.reading.chosen
        return {
            name: self.page_tokens * (chosen[name].index.shape[-1] if name in chosen else group.live)
            for name, group in self.groups.items()
        }

    def tokens(self) -> dict[str, int]:
        """Cached tokens per group."""
        return {name: group.live * self.page_tokens for name, group in self.groups.items()}

    def frames(self) -> list[int]:
        """Latent frames with a cached page in any group, ascending."""
        return sorted({int(frame) for group in self.groups.values() for frame in group.pages.frame})

    def bytes(self) -> int:
        """Bytes of K and V in occupied pages, from the page tables."""
        return sum(group.live * group.page_bytes for group in self.groups.values())

    def bytes_by_frame(self) -> dict[int, int]:
        """Bytes of K and V in occupied pages, by the latent frame that they are of."""
        found: dict[int, int] = {}
        for group in self.groups.values():
            for frame in group.pages.frame.tolist():
                found[frame] = found.get(frame, 0) + group.page_bytes
        return found

    def allocated_bytes(self) -> int:
        """Bytes of the K and V buffers and of the area, those included that other caches read too."""
        return pinned_bytes([self])

    # Positions in time.

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
            group.straighten(0)
            pages = group.pages
            slots = pages.slot[pages.rows_of(frames)]
            tokens = group.tokens_of(group.place[slots])
            for keys in group.keys:
                put(keys, tokens, shifted(take(keys, tokens).float(), np.full(len(slots), steps), self.page_tokens))
            group.position[slots] += steps


def unique_bytes(caches: Iterable[KVCache]) -> int:
    """Bytes of K and V in the pages of several caches, each shared page counted once."""
    caches = list(caches)
    own = sum(group.own * group.page_bytes for cache in caches for group in cache.groups.values())
    slots: dict[Frozen, set[int]] = {}
    for run in _runs_of(caches):
        slots.setdefault(run.home, set()).update(run.pages.slot.tolist())
    return own + sum(len(pages) * home.page_bytes for home, pages in slots.items())


def pinned_bytes(caches: Iterable[KVCache]) -> int:
    """Bytes of the K and V buffers of several caches, each shared one counted once and as a whole."""
    caches = list(caches)
    buffers = [buffer for cache in caches for buffer in (*cache._buffers(), *cache._area.buffers)]
    return sum(buffer.nbytes for buffer in buffers) + sum(home.bytes for home in {run.home for run in _runs_of(caches)})


def _runs_of(caches: Iterable[KVCache]) -> list[Run]:
    return [run for cache in caches for group in cache.groups.values() for run in group.runs]
