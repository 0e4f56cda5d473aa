"""Where attention goes: the mass of every head on every frame while a stream runs, and the head scores from it.

A probe sees queries and keys of each head group (`fkv.transformer.probes.Probe`). Masses are summed block by block in
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

from .cache import HeadGroup, KVCache
from .kernels import frame_mass
from .pages import Geometry, Head

Age = Literal["sink", "older", "anchor", "current"]
AGES: tuple[Age, ...] = ("sink", "older", "anchor", "current")
FLUSH_ELEMENTS = 2**19  # keys of a head group that may wait before their masses are computed


@dataclass(frozen=True)
class Focus:
    """One query patch of one head.

    Args:
        layer: Layer of the head.
        head: The head.
        row: Row of the patch in the token grid.
        col: Column of the patch.
        frame: Query frame, counted within the chunk; -1 is its last one.
    """

    layer: int
    head: int
    row: int
    col: int
    frame: int = -1

    def check(self, geometry: Geometry) -> None:
        """Raise ValueError unless the model has this head and the token grid this patch."""
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

    Args:
        chunk: Index of the chunk.
        name: `step 0`, `step 1`, ... or `context`.
        frames: The latent frames of the chunk, which are the query frames.
        key_frames: The latent frames that are attended to, ascending.
        mass: Softmax mass, summed over the keys of a frame and averaged over queries, float32
            [layers, heads, query frames, key frames]. Rows sum to 1; frames that a head has not cached have 0.
        maps: With a focus, key frame -> mass of its query on each patch, float32 [rows, cols]; NaN in segments that are
            not cached.
    """

    chunk: int
    name: str
    frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    mass: np.ndarray
    maps: dict[int, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        layers, heads = self.mass.shape[:2]
        keys = len(self.key_frames)
        return f"PassMass(chunk {self.chunk}, {self.name}, {layers} layers x {heads} heads, {keys} key frames)"

    @property
    def by_age(self) -> np.ndarray:
        """Mass per class of `AGES`, averaged over query frames: [layers, heads, 4]."""
        ages = np.array(ages_of(self.key_frames, self.frames[0]))
        return np.stack([self.mass[..., ages == age].sum(-1).mean(-1) for age in AGES], -1)


def ages_of(key_frames: Sequence[int], first: int, sink: int = 1, anchor: int = 1) -> list[Age]:
    """Classify key frames by their age, as head scores see them; what a policy keeps is `Policy.page_kind`.

    Args:
        key_frames: Latent frames.
        first: First latent frame of the chunk that attends.
        sink: Number of first frames of the stream that are `sink`.
        anchor: Number of frames just before the chunk that are `anchor`.

    Returns:
        A class of `AGES` for each frame.
    """

    def age(frame: int) -> Age:
        if frame >= first:
            return "current"
        if frame < sink:
            return "sink"
        return "anchor" if frame >= first - anchor else "older"

    return [age(frame) for frame in key_frames]


def head_scores(mass: np.ndarray, last_k: int = 4, skip: int = 1) -> np.ndarray:
    """Score heads by the share of their mass on the newest frames (arXiv 2605.09681).

    Args:
        mass: [..., query frames, key frames].
        last_k: Number of newest key frames that count as near.
        skip: Number of first key frames that do not count at all.

    Returns:
        Mass on the last `last_k` key frames / mass on all but the first `skip`, [...], each in [0, 1].

    Raises:
        ValueError: No key frame is left.
    """
    frames = _scored(mass.shape[-1], last_k, skip)
    total = mass.sum(-2, dtype=np.float64)
    return total[..., -frames:].sum(-1) / total[..., skip:].sum(-1)


def uniform_score(key_frames: int, last_k: int = 4, skip: int = 1) -> float:
    """The score of a head that attends to all keys alike; scores near it say nothing."""
    return _scored(key_frames, last_k, skip) / (key_frames - skip)


def _scored(key_frames: int, last_k: int, skip: int) -> int:
    """The number of key frames that count as near."""
    if last_k < 1 or skip < 0 or key_frames <= skip:
        raise ValueError(
            f"cannot score {key_frames} key frames with skip = {skip} and last_k = {last_k}; "
            f"use skip below {key_frames}, last_k above 0"
        )
    return min(last_k, key_frames - skip)


def sampled_tokens(geometry: Geometry, queries: int | None) -> np.ndarray:
    """Sample tokens of a frame at a regular step, which is coprime with the row length and so meets all columns.

    Args:
        geometry: Sizes of the token grid.
        queries: About how many tokens; None for all.

    Returns:
        Token numbers, int [tokens].
    """
    tokens = geometry.tokens_per_frame
    step = max(1, tokens // queries) if queries else 1
    while step > 1 and math.gcd(step, geometry.cols) > 1:
        step -= 1
    return np.arange(step // 2, tokens, step)


@dataclass
class FrameMassProbe:
    """Records a `PassMass` of each pass; give it to `Stream.step` and `take` the records afterwards.

    Args:
        queries: About how many queries per frame to look at, evenly spaced; None for all.
        passes: Names of the passes to record; None for all, default: the context pass.
        focus: A query whose attention on each patch is recorded too.

    Raises:
        ValueError: `queries` is below 1.
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
        """Start a pass. Returns whether the probe wants to see it."""
        self._close()
        if self.passes is None or name in self.passes:
            self._open = _OpenPass(chunk, name, frames)
        return self._open is not None

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        """Look at the heads of one group in one layer, as in `fkv.transformer.probes.Probe`."""
        if self._open is None:
            return
        self._open.add(layer, group, heads, query, keys, cache, self.queries)
        if self.focus is not None and self.focus.layer == layer and self.focus.head in heads:
            self._open.maps = patch_maps(self.focus, group, heads, query, keys, cache)

    def take(self) -> list[PassMass]:
        """Return the records since the last call, in the order of the passes, and forget them.

        Raises:
            ValueError: The model does not have the head of the focus.
        """
        self._close()
        done = self._done
        self._done = []
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
class _Waiting:
    """Queries and keys of one layer of a head group whose mass is yet to be computed, and the heads they belong to."""

    heads: list[Head]
    queries: Tensor
    keys: Tensor


@dataclass
class _OpenPass:
    """A pass while its layers come in.

    The layers of a head group are measured together, because many small calls take longer than a large one; masses stay
    on the device until the pass is closed.
    """

    chunk: int
    name: str
    frames: tuple[int, ...]
    key_frames: tuple[int, ...] = ()
    shape: tuple[int, int] = (0, 0)
    heads: list[Head] = field(default_factory=list)
    masses: list[Tensor] = field(default_factory=list)
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    queries: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    page_frame: dict[str, Tensor] = field(default_factory=dict)
    waiting: dict[str, list[_Waiting]] = field(default_factory=dict)
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
        """Take in the heads of one group in one layer."""
        geometry = cache.geometry
        device = query.device
        if not self.seen:
            self.key_frames = tuple(cache.frames())
            self.shape = (geometry.layers, geometry.heads)
            starts = np.arange(len(self.frames)) * geometry.tokens_per_frame
            tokens = starts[:, None] + sampled_tokens(geometry, queries)
            self.queries = torch.from_numpy(tokens.reshape(-1)).to(device)
        name = f"{group.name} {heads[0]}" if cache.reading.by_head(group) else group.name
        if name not in self.page_frame:
            page_frame = np.searchsorted(self.key_frames, cache.reading.pages(group, heads[0]).frame)
            self.page_frame[name] = torch.from_numpy(page_frame).to(device)
        self.seen += len(heads)
        waiting = self.waiting.setdefault(name, [])
        keys = keys.clone() if cache.apart else keys  # where the next layer writes too
        waiting.append(_Waiting([(layer, head) for head in heads], query.index_select(2, self.queries), keys))
        every_head = self.seen == geometry.layers * geometry.heads
        if every_head or sum(each.keys.numel() for each in waiting) >= FLUSH_ELEMENTS:
            self._measure()

    def _measure(self) -> None:
        """Compute the masses of all that waits, before its keys change."""
        for name, waiting in self.waiting.items():
            queries = _joined([each.queries for each in waiting])
            keys = _joined([each.keys for each in waiting])
            self.heads += [head for each in waiting for head in each.heads]
            self.masses.append(frame_mass(queries, keys, self.page_frame[name], len(self.key_frames)))
        self.waiting.clear()

    def closed(self) -> PassMass:
        """The record of the pass."""
        mass = np.zeros((*self.shape, len(self.frames), len(self.key_frames)), np.float32)
        measured = torch.cat(self.masses, 1).unflatten(2, (len(self.frames), -1)).mean((0, 3))
        mass[tuple(zip(*self.heads, strict=True))] = measured.cpu().numpy()
        return PassMass(self.chunk, self.name, self.frames, self.key_frames, mass, self.maps)


def _joined(layers: list[Tensor]) -> Tensor:
    """Tensors of several layers, one after the other along their heads; a single one is not copied."""
    return layers[0] if len(layers) == 1 else torch.cat(layers, 1)


def patch_maps(
    focus: Focus, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
) -> dict[int, np.ndarray]:
    """Where one query looks, patch by patch.

    Args:
        focus: The query.
        group: The head group of its head.
        heads: Heads of that group in its layer.
        query: [batch, heads, chunk tokens, head_dim]; the first of the batch is read.
        keys: [batch, heads, cached tokens, head_dim].
        cache: The cache of the group.

    Returns:
        Key frame -> softmax mass on each patch, float32 [rows, cols]; NaN in segments that are not cached.
    """
    geometry = cache.geometry
    pages = cache.reading.pages(group, focus.head)
    focus.check(geometry)
    at = list(heads).index(focus.head)
    first = (focus.frame % geometry.frames_per_chunk) * geometry.tokens_per_frame
    token = first + focus.row * geometry.cols + focus.col
    scores = keys[0, at].float() @ query[0, at, token].float() * geometry.head_dim**-0.5
    mass = scores.softmax(0).reshape(len(pages), cache.page_tokens).cpu().numpy()
    maps: dict[int, np.ndarray] = {}
    for frame, segment, values in zip(pages.frame.tolist(), pages.segment.tolist(), mass, strict=True):
        flat = maps.setdefault(frame, np.full(geometry.tokens_per_frame, np.nan, np.float32))
        flat[segment * cache.page_tokens : (segment + 1) * cache.page_tokens] = values
    return {frame: maps[frame].reshape(geometry.rows, geometry.cols) for frame in sorted(maps)}
