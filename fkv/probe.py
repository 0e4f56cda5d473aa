"""Where attention goes: frame-wise mass of every head while a stream runs, and the head scores that follow from it.

A probe sees queries and keys of each head group (`fkv.transformer.causal.Probe`). Masses are summed block by block in
`fkv.kernels.frame_mass`; a queries x keys matrix never exists.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .cache import Geometry, HeadGroup, KVCache
from .kernels import frame_mass

Age = Literal["sink", "older", "anchor", "current"]
AGES: tuple[Age, ...] = ("sink", "older", "anchor", "current")
FLUSH_ELEMENTS = 2**19
"""From how many numbers of keys on a head group is looked at without waiting for more layers."""


@dataclass(frozen=True)
class Focus:
    """One query patch of one head: `frame` counts within the chunk (-1 is its last), `row` and `col` within the token grid."""

    layer: int
    head: int
    row: int
    col: int
    frame: int = -1

    def check(self, geometry: Geometry) -> None:
        """Raises ValueError unless the model has such a head and the token grid such a patch."""
        frames = geometry.frames_per_chunk
        geometry.check_head(self.layer, self.head)
        if not (0 <= self.row < geometry.rows and 0 <= self.col < geometry.cols and -frames <= self.frame < frames):
            raise ValueError(
                f"there is no patch at row {self.row}, column {self.col}, frame {self.frame}; "
                f"a chunk has {frames} frames of {geometry.rows} x {geometry.cols} patches"
            )


@dataclass(frozen=True)
class PassMass:
    """Attention of one pass over one chunk.

    name : `step 0`, `step 1`, ... or `context`. frames : the chunk's latent frames, the query frames.
    key_frames : latent frames attended to, ascending, absolute. mass : float32 [layers, heads, query frames, key frames],
    softmax mass summed over a frame's keys and averaged over queries; rows sum to 1, frames that a head does not hold have 0.
    maps : with a focus, key frame -> mass of that query on each patch, float32 [rows, cols], NaN where a segment is not held.
    """

    chunk: int
    name: str
    frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    mass: np.ndarray
    maps: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def by_age(self) -> np.ndarray:
        """Mass per class of `AGES`, averaged over query frames: [layers, heads, 4]."""
        ages = np.array(ages_of(self.key_frames, self.frames[0]))
        return np.stack([self.mass[..., ages == age].sum(-1).mean(-1) for age in AGES], -1)


def ages_of(key_frames: Sequence[int], first: int, sink: int = 1, anchor: int = 1) -> list[Age]:
    """What each key frame is to a chunk that begins at latent frame `first`: part of the chunk (`current`), one of the `sink`
    first frames of the stream, one of the `anchor` frames just before the chunk, or `older`."""

    def age(frame: int) -> Age:
        return (
            "current"
            if frame >= first
            else "sink"
            if frame < sink
            else "anchor"
            if frame >= first - anchor
            else "older"
        )

    return [age(frame) for frame in key_frames]


def head_scores(mass: np.ndarray, last_k: int = 4, skip: int = 1) -> np.ndarray:
    """Mass on the last `last_k` key frames over mass on all key frames after the first `skip` (arXiv 2605.09681).

    mass: [..., query frames, key frames] -> [...], each score in [0, 1]. Raises ValueError when no key frame is left.
    """
    frames = _scored(mass.shape[-1], last_k, skip)
    total = mass.sum(-2, dtype=np.float64)
    return total[..., -frames:].sum(-1) / total[..., skip:].sum(-1)


def uniform_score(key_frames: int, last_k: int = 4, skip: int = 1) -> float:
    """The score of a head that attends to all keys alike: scores near it say nothing."""
    return _scored(key_frames, last_k, skip) / (key_frames - skip)


def _scored(key_frames: int, last_k: int, skip: int) -> int:
    if last_k < 1 or skip < 0 or key_frames <= skip:
        raise ValueError(
            f"cannot score {key_frames} key frames with skip = {skip} and last_k = {last_k}; use skip below {key_frames}, last_k above 0"
        )
    return min(last_k, key_frames - skip)


def sampled_tokens(geometry: Geometry, queries: int | None) -> np.ndarray:
    """About `queries` token numbers of a frame at a regular step, which is coprime with the row length so that it meets
    all columns; all tokens for None."""
    tokens = geometry.tokens_per_frame
    step = max(1, tokens // queries) if queries else 1
    while step > 1 and math.gcd(step, geometry.cols) > 1:
        step -= 1
    return np.arange(step // 2, tokens, step)


@dataclass
class FrameMassProbe:
    """Records the `PassMass` of every pass it is shown; give it to `Stream.step` and `take` the records afterwards.

    queries : about how many queries to look at per frame, evenly spread; None for all. passes : names of the passes to
    record, by default the one that decides which keys are stored; None for all. focus : also record where this one query looks.
    """

    queries: int | None = 8
    passes: Collection[str] | None = ("context",)
    focus: Focus | None = None
    _done: list[PassMass] = field(default_factory=list, init=False, repr=False)
    _open: _OpenPass | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries must be at least 1, or None for all; it is {self.queries}")

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> bool:
        self._close()
        if self.passes is None or name in self.passes:
            self._open = _OpenPass(chunk, name, frames)
        return self._open is not None

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        self._open.add(layer, group, heads, query, keys, cache, self.queries)
        if self.focus is not None and (self.focus.layer, self.focus.head) in ((layer, head) for head in heads):
            self._open.maps = patch_maps(self.focus, group, heads, query, keys, cache)

    def take(self) -> list[PassMass]:
        """The records since the last call, in order of the passes, and forget them."""
        self._close()
        done, self._done = self._done, []
        if self.focus is not None and done and not any(record.maps for record in done):
            raise ValueError(
                f"no pass showed head {self.focus.head} of layer {self.focus.layer}; the model has no such head"
            )
        return done

    def _close(self) -> None:
        if self._open is not None and self._open.masses:
            self._done.append(self._open.closed())
        self._open = None


@dataclass
class _OpenPass:
    """A pass while its layers come in. Those of a head group are looked at together, since many small calls take longer than a large
    one; masses stay on the device until the pass is closed."""

    chunk: int
    name: str
    frames: tuple[int, ...]
    key_frames: tuple[int, ...] = ()
    shape: tuple[int, int] = (0, 0)
    places: list[tuple[int, int]] = field(default_factory=list)
    masses: list[Tensor] = field(default_factory=list)
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    queries: Tensor | None = None
    page_frame: dict[str, Tensor] = field(default_factory=dict)
    waiting: dict[str, list[tuple[list[tuple[int, int]], Tensor, Tensor]]] = field(default_factory=dict)
    seen: int = 0

    def add(
        self,
        layer: int,
        group: HeadGroup,
        heads: Sequence[int],
        query: Tensor,
        keys: Tensor,
        cache: KVCache,
        queries: int | None,
    ) -> None:
        geometry, device = cache.geometry, query.device
        if not self.seen:
            self.key_frames, self.shape = tuple(cache.frames()), (geometry.layers, geometry.heads)
            starts = np.arange(len(self.frames)) * geometry.tokens_per_frame
            self.queries = torch.from_numpy((starts[:, None] + sampled_tokens(geometry, queries)).reshape(-1)).to(
                device
            )
        if group.name not in self.page_frame:
            self.page_frame[group.name] = torch.from_numpy(np.searchsorted(self.key_frames, group.pages.frame)).to(
                device
            )
        self.seen += len(heads)
        waiting = self.waiting.setdefault(group.name, [])
        waiting.append(([(layer, head) for head in heads], query.index_select(2, self.queries), keys))
        if self.seen == geometry.layers * geometry.heads or sum(own.numel() for *_, own in waiting) >= FLUSH_ELEMENTS:
            self._look()

    def _look(self) -> None:
        """Measure what waits, before its keys change."""
        for name, waiting in self.waiting.items():
            places, queries, keys = zip(*waiting)
            queries, keys = (each[0] if len(each) == 1 else torch.cat(each, 1) for each in (queries, keys))
            self.places += [place for layer in places for place in layer]
            self.masses.append(frame_mass(queries, keys, self.page_frame[name], len(self.key_frames)))
        self.waiting.clear()

    def closed(self) -> PassMass:
        mass = np.zeros((*self.shape, len(self.frames), len(self.key_frames)), np.float32)
        each = torch.cat(self.masses, 1).unflatten(2, (len(self.frames), -1)).mean((0, 3))
        mass[tuple(zip(*self.places))] = each.cpu().numpy()
        return PassMass(self.chunk, self.name, self.frames, self.key_frames, mass, self.maps)


def patch_maps(
    focus: Focus, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
) -> dict[int, np.ndarray]:
    """Where one query looks: key frame -> softmax mass on each patch, float32 [rows, cols], NaN where a segment is not held.

    query [batch, heads, chunk tokens, head_dim], keys [batch, heads, live tokens, head_dim]; the first of the batch is read.
    """
    geometry, pages = cache.geometry, group.pages
    focus.check(geometry)
    row = list(heads).index(focus.head)
    token = (
        (focus.frame % geometry.frames_per_chunk) * geometry.tokens_per_frame + focus.row * geometry.cols + focus.col
    )
    scores = keys[0, row].float() @ query[0, row, token].float() * geometry.head_dim**-0.5
    mass = scores.softmax(0).reshape(len(pages), cache.page_tokens).cpu().numpy()
    maps: dict[int, np.ndarray] = {}
    for frame, segment, values in zip(pages.frame.tolist(), pages.segment.tolist(), mass):
        flat = maps.setdefault(frame, np.full(geometry.tokens_per_frame, np.nan, np.float32))
        flat[segment * cache.page_tokens : (segment + 1) * cache.page_tokens] = values
    return {frame: maps[frame].reshape(geometry.rows, geometry.cols) for frame in sorted(maps)}
