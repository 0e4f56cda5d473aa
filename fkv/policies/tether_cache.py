"""TetherCache: a memory of frames that attention asks for and that differ from each other, tied to its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.cache import KVCache
from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Frames, Share
from fkv.roles import HeadRoles

from .base import ChunkState, Policy, check_recent
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of


@dataclass(frozen=True)
class TetherCache(Policy):
    """Reads S3 + M14 + R1 + C3 at positions 0 to 20 (arXiv 2606.13035, my4f175/TetherCache).

    In the context pass, each layer admits the frames that leave the recent ones to its memory by attention mass and
    diversity (GRAB), and pulls what it admits towards the statistics of sink and memory (TAME).
    """

    name = "tether-cache"
    help = "a memory per layer of frames that attention asks for and that differ, tied to its statistics"
    paper = "arXiv 2606.13035"
    reading = "S3 + M14 + R1 + C3"
    checked = "my4f175/TetherCache"

    budget_frames: Annotated[Frames, Field(ge=1, description="attended frames, those of the chunk included")] = 21
    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 3
    recent_frames: Annotated[Frames, Field(ge=1, description="newest frames, those of the chunk included")] = 4
    diversity: Annotated[float, Field(ge=0, description="weight of diversity beside attention mass (`alpha`)")] = 0.35
    blend: Annotated[Share, Field(description="share of the matched statistics in an admitted frame (`tau`)")] = 0.35
    temperature: Annotated[float, Field(gt=0, description="of the softmax over candidates")] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_frames < 1:
            raise ValueError(
                f"budget_frames ({self.budget_frames}) must exceed sink_frames ({self.sink_frames}) "
                f"and recent_frames ({self.recent_frames}) together"
            )

    @property
    def memory_frames(self) -> int:
        """Frames of the memory."""
        return self.budget_frames - self.sink_frames - self.recent_frames

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        check_recent(self.recent_frames, geometry)
        return geometry.every_layer

    @property
    def edits_pages(self) -> bool:
        return True  # in `select`

    def settled(self, state: ChunkState) -> bool:
        return state.frames[-1] + 1 >= self.budget_frames

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        count = len(state.frames)
        first = min(state.frames[0], self.budget_frames - count)
        return range(first, first + count)

    def memory(self, group: str, state: ChunkState) -> np.ndarray:
        """Frames in a layer's memory, ascending."""
        start = np.arange(self.sink_frames, self.sink_frames + self.memory_frames)
        return state.cache.notes.setdefault("memory", {}).get(group, start)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        pages = pages_of(group, state)
        if state.frames[-1] < self.budget_frames:
            as_stored = np.array_equal(pages.frame, pages.position)  # or another policy has stored them
            return None if as_stored else Reads(np.arange(len(pages)), pages.frame)
        recent = np.arange(state.frames[-1] + 1 - self.recent_frames, state.frames[-1] + 1)
        frames = np.concatenate([np.arange(self.sink_frames), self.memory(group, state), recent])
        index = pages.rows_of(frames)
        position = np.searchsorted(frames, pages.frame[index])
        missing = self.budget_frames - len(frames)  # of a memory that is not full, as after a flush
        return Reads(index, np.where(pages.frame[index] < self.sink_frames, position, position + missing))

    def selects(self, step: str, state: ChunkState) -> bool:
        return step == "context" and state.frames[-1] >= self.budget_frames

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        cache, name = state.cache, f"layer {layer}"
        if not cache.groups[name].heads[layer]:
            return  # all silenced
        members = self.memory(name, state)
        leaving = state.frames[0] - self.recent_frames + np.arange(len(state.frames))
        cached = cache.groups[name].pages.frame
        members, leaving = (frames[np.isin(frames, cached)] for frames in (members, leaving))
        candidates = np.concatenate([members, leaving])
        if not len(candidates):
            cache.notes["memory"][name] = candidates
            return
        keep = self.chosen(self.scores(state, layer, name, query, candidates))
        admitted = [frame for frame in candidates[keep] if frame in leaving]
        if admitted:
            self._tie(state, layer, name, np.array(admitted), members)
        cache.notes["memory"][name] = candidates[keep]

    def chosen(self, scores: np.ndarray) -> np.ndarray:
        """Indices of the candidates that stay, ascending."""
        return np.sort(np.argsort(-scores, kind="stable")[: self.memory_frames])

    def scores(self, state: ChunkState, layer: int, name: str, query: Tensor, candidates: np.ndarray) -> np.ndarray:
        """Attention mass plus weighted diversity of each candidate frame, [candidates]."""
        cache = state.cache
        heads = cache.heads_of(layer, name)
        mean_query = cache.unrotated_query(name, state.frames, query[:, heads]).mean(2)
        mean_keys = torch.stack([self._content(cache, layer, name, frame)[0].mean(2) for frame in candidates], 2)
        logits = (mean_query[:, :, None] * mean_keys).sum(-1).mean((0, 1)) * query.shape[3] ** -0.5
        mass = (logits / self.temperature).softmax(0).double().cpu().numpy()
        extent = max(1.0, 0.5 * (candidates.max() - candidates.min() + 1))
        likeness = np.exp(-np.abs(candidates[:, None] - candidates) / extent)
        np.fill_diagonal(likeness, 0)
        return mass + self.diversity * np.maximum(0, 1 - (likeness * mass).max(1))

    def _content(self, cache: KVCache, layer: int, name: str, frame: int) -> tuple[Tensor, Tensor]:
        """Keys before RoPE and values of one frame, float32 [batch, heads, tokens, head_dim]."""
        keys, values = cache.unrotated(layer, name, cache.groups[name].pages.rows_of([frame]))
        return keys.flatten(2, 3), values.flatten(2, 3)

    def _tie(self, state: ChunkState, layer: int, name: str, admitted: np.ndarray, members: np.ndarray) -> None:
        """Pull admitted frames towards the statistics of sink and memory, per head and channel."""
        cache = state.cache
        pages = cache.groups[name].pages
        anchored = pages.rows_of([*range(self.sink_frames), *members])
        if not len(anchored):
            return
        anchors = cache.unrotated(layer, name, anchored)
        targets = [_statistics(x.flatten(2, 3)) for x in anchors]
        for frame in admitted:
            tied = []
            for x, (mean, deviation) in zip(self._content(cache, layer, name, frame), targets, strict=True):
                own_mean, own_deviation = _statistics(x)
                tied.append((1 - self.blend) * x + self.blend * (deviation * (x - own_mean) / own_deviation + mean))
            rows = pages.rows_of([frame])
            cache.edit(layer, name, rows, *(x.unflatten(2, (len(rows), cache.page_tokens)) for x in tied))

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        if state.frames[-1] < self.budget_frames:
            return np.ones(len(pages), bool)
        recent = pages.frame > state.frames[-1] - self.recent_frames
        return (pages.frame < self.sink_frames) | np.isin(pages.frame, self.memory(group, state)) | recent

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        recalled = state.frames[-1] >= self.budget_frames and frame in self.memory(group, state)
        return RECALLED if recalled else KEPT


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population deviation over tokens, [batch, heads, 1, head_dim]."""
    return x.mean(2, keepdim=True), x.std(2, correction=0, keepdim=True).clamp_min(1e-6)
