"""Pyramid Forcing: three classes of heads, each with its own view of the past."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from fkv.cache import KVCache
from fkv.cache.rotation import rotated
from fkv.kernels import rope_freqs_cis
from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Count, Frames
from fkv.resources import asset
from fkv.roles import HeadRoles, RolesError

from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of

CLASSES = asset("head_roles") / "classes" / "pyramid_self_forcing.json"
PATCH = 2  # rows and columns of tokens that become one when frames are merged
BLOCK = PATCH * PATCH  # frames of a merged block, and pages per frame: a block is as large as one page
NAMES = ("wave", "anchor", "veil")
HORIZON = 21  # latent frames that Self Forcing was trained on


@dataclass(frozen=True)
class PyramidForcing(Policy):
    """Wave, anchor and veil heads read other frames of the past (IF-LAB-PKU/Pyramid-Forcing).

    All heads read a sink, the frame before the chunk and the chunk. Wave heads add the newest frames at the chunk's
    phase in a period of 6, anchor heads the newest frames that the period divides, veil heads the newest blocks of 4
    frames, each merged into a quarter of a frame. Sink and added frames sit 21 frames before the chunk, merged blocks
    where they were.

    The classes are published for Self Forcing; `fkv profile --classes` finds some for any model. Without them, dynamic
    heads count as anchor heads and static ones as wave heads, which for Self Forcing is true of 4 heads in 5; there are
    no veil heads then.

    Differences: as released, each frame of a chunk has its own phase and its own distance to the sink; here a chunk has
    those of its first frame. In the context pass the released code already counts the chunk itself among added frames.
    A re-cache loses the merged blocks.
    """

    name = "pyramid-forcing"
    help = "three classes of heads with a periodic, a strided and a merged view of the past"
    paper = "github.com/IF-LAB-PKU/Pyramid-Forcing"
    reading = "wave heads S1 + M4 + R1 + C3, anchor heads S3 + M4 + R1 + C3, veil heads S3 + M1 + R1 + C3"

    period: Annotated[Frames, Field(ge=1, description="between frames that wave and anchor heads add")] = 6
    added_frames: Annotated[Count, Field(ge=1, description="frames or merged blocks that a head adds")] = 4
    wave_sink_frames: Annotated[Frames, Field(description="sink of wave heads")] = 1
    sink_frames: Annotated[Frames, Field(description="sink of anchor and veil heads")] = 3
    recent_frames: Annotated[Frames, Field(le=PATCH, description="newest frames before the chunk")] = 1

    def segments_of(self, geometry: Geometry) -> int:
        if geometry.rows % PATCH or geometry.cols % PATCH:
            raise ValueError(
                f"policy {self.name!r} merges {PATCH} by {PATCH} tokens; "
                f"frames of {geometry.rows} by {geometry.cols} tokens cannot be divided so"
            )
        return BLOCK

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        if roles is None:
            raise ValueError(
                f"policy {self.name!r} needs head classes or roles; profile the model or name a roles file"
            )
        roles.check(geometry.layers, geometry.heads)
        return head_classes(roles)

    def sink(self, group: str) -> int:
        """Frames in the sink of a class."""
        return self.wave_sink_frames if group == "wave" else self.sink_frames

    def added(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        """Frames that heads of a class read besides sink, recent and current ones, ascending."""
        first = state.frames[0]
        frames = np.unique(pages.frame[(pages.frame >= self.sink(group)) & (pages.frame < first)])
        if group == "veil":
            return frames[frames <= self._merged_until(first)][-self.added_frames :]
        phase = first if group == "wave" else 0
        return frames[(frames - phase) % self.period == 0][-self.added_frames :]

    @staticmethod
    def _merged_until(frame: int) -> int:
        """The last of the frames that stand for blocks when all frames before this one are there."""
        return (frame // BLOCK - 1) * BLOCK + 1

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        end = state.frames[-1] + 1
        keep = (pages.frame < self.sink(group)) | (pages.frame >= end - self.recent_frames)
        if group == "veil":
            open_block = pages.frame >= end // BLOCK * BLOCK
            merged = (pages.frame % BLOCK == 1) & (pages.segment == 0) & pages.edited
            return keep | open_block | merged & (pages.frame > self._merged_until(end) - self.added_frames * BLOCK)
        span = self.added_frames * self.period
        if group == "wave":
            phases = (pages.frame - end) % math.gcd(self.period, len(state.frames)) == 0  # those of chunks to come
            return keep | phases & (pages.frame >= end - span)
        return keep | (pages.frame % self.period == 0) & (pages.frame > end - 1 - span)

    def reads(self, group: str, state: ChunkState) -> Reads:
        pages, first = pages_of(group, state), state.frames[0]
        added = self.added(group, pages, state)
        sink = pages.frame < self.sink(group)
        moved = sink | np.isin(pages.frame, added) if group != "veil" else sink
        merged = np.isin(pages.frame, added) & pages.edited & (group == "veil")
        recent = (pages.frame >= first - self.recent_frames) & ~pages.edited
        index = np.flatnonzero(moved | merged | recent)
        at = np.where(moved & (pages.frame < first), max(0, first - HORIZON), pages.position)
        return Reads(index, at[index])

    def edit(self, state: ChunkState) -> None:
        group = state.cache.groups.get("veil")
        if group is None or not any(group.heads):
            return
        for frame in range(state.frames[0], state.frames[-1] + 1):
            if frame % BLOCK == BLOCK - 1 and frame - BLOCK + 1 >= self.sink_frames:
                self._merge(state.cache, range(frame - BLOCK + 1, frame + 1))

    @staticmethod
    def _merge(cache: KVCache, frames: Sequence[int]) -> None:
        """Put the mean of a block over frames and patches into the first page of its second frame."""
        geometry, group = cache.geometry, cache.groups["veil"]
        pages = group.pages
        rows = pages.rows_of(frames)
        if len(rows) < BLOCK * cache.segments:
            return
        rows = rows[np.lexsort((pages.segment[rows], pages.frame[rows]))]
        target = pages.rows_of([frames[1]])
        target = target[pages.segment[target] == 0]
        turns = rope_freqs_cis([0], geometry.rows, geometry.cols, geometry.head_dim, cache.device)
        corners = turns.unflatten(0, (geometry.rows, geometry.cols))[::PATCH, ::PATCH].flatten(0, 1)
        turns = corners * turns[: cache.page_tokens].conj()  # the page belongs to other tokens
        for layer, heads in enumerate(group.heads):
            if heads:
                keys, values = (_mean(x, geometry) for x in cache.unrotated(layer, "veil", rows))
                cache.edit(layer, "veil", target, rotated(keys, turns)[:, :, None], values[:, :, None])

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink(group):
            return SINK
        return RECALLED if frame < state.frames[0] - self.recent_frames else KEPT


def head_classes(roles: HeadRoles) -> dict[str, Heads]:
    """The classes that a roles file carries (`fkv profile --classes`), the published ones where the roles are Self
    Forcing's, else classes by role: class -> heads per layer.

    Raises:
        RolesError: The file's classes leave a head out, or name one twice.
    """
    if "classes" in roles.provenance:
        return _own_classes(roles, roles.provenance["classes"])
    if data := _published(roles):
        return {name: tuple(tuple(layer[name]) for layer in data["layers"]) for name in NAMES}
    nobody: Heads = ((),) * roles.num_layers
    return {"wave": roles.heads("static"), "anchor": roles.heads("dynamic"), "veil": nobody}


def classes_provenance(roles: HeadRoles) -> dict[str, Any]:
    """Where the classes of `head_classes` come from, such as their `source`; empty where they follow from the roles."""
    own = roles.provenance.get("classes")
    return own.get("provenance", {}) if own else _published(roles)


def _published(roles: HeadRoles) -> dict[str, Any]:
    """The published classes where the roles are Self Forcing's, otherwise nothing."""
    data: dict[str, Any] = json.loads(CLASSES.read_text(encoding="utf-8"))
    model = str(roles.provenance.get("model", "")).lower().replace(" ", "-")
    theirs = (data["model"], data["num_layers"], data["num_heads"])
    return data if (model, roles.num_layers, roles.num_heads) == theirs else {}


def _own_classes(roles: HeadRoles, data: Any) -> dict[str, Heads]:
    """The classes of a roles file, checked."""
    try:
        classes = {name: tuple(map(tuple, data[name])) for name in NAMES}
        layers = [sorted(head for part in parts for head in part) for parts in zip(*classes.values(), strict=True)]
    except (KeyError, TypeError, ValueError):
        raise RolesError(f"classes of heads are lists per layer, of {', '.join(NAMES)}") from None
    if len(layers) != roles.num_layers:
        raise RolesError(f"classes of heads are for {len(layers)} layers, the roles for {roles.num_layers}")
    for layer, heads in enumerate(layers):
        if heads != list(range(roles.num_heads)):
            raise RolesError(f"layer {layer}: every head needs one class of {', '.join(NAMES)}")
    for by_layer in classes.values():
        HeadRoles(roles.num_heads, by_layer)  # 1.0 and true are no heads
    return classes


def _mean(contents: Tensor, geometry: Geometry) -> Tensor:
    """Mean over frames and patches: [batch, heads, pages, page_tokens, size] -> [batch, heads, tokens / 4, size]."""
    tokens = contents.flatten(2, 3).unflatten(2, (-1, geometry.rows // PATCH, PATCH, geometry.cols // PATCH, PATCH))
    return tokens.mean((2, 4, 6)).flatten(2, 3)
