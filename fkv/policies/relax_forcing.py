"""Relax Forcing: one frame of the past, chosen by how like the sink and unlike the tail it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from fkv.cache import HeadGroup
from fkv.pages import Pages, Reads
from fkv.parameters import Count, Frames

from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of, read, read_frames


@dataclass(frozen=True)
class RelaxForcing(Policy):
    """Reads S2 + M1 + R1 + C3 out of a reservoir of 120 frames (arXiv 2603.21366, zengqunzhao/Relax-Forcing).

    The chosen frames and the sink sit right before the tail. One choice per chunk, from the keys of the first layer
    before RoPE (the first that is not silenced), serves all layers and passes.
    """

    name = "relax-forcing"
    help = "reads a sink, one chosen frame of the past and the newest frame: the smallest reading of all"
    paper = "arXiv 2603.21366"
    reading = "S2 + M1 + R1 + C3"
    compares_keys = True
    checked = "zengqunzhao/Relax-Forcing"

    reservoir_frames: Annotated[
        Frames, Field(ge=1, description="cached frames, the chunk's included (`local_attn_size`)")
    ] = 120
    sink_frames: Annotated[Frames, Field(description="first frames, always read")] = 2
    memory_frames: Annotated[Frames, Field(description="chosen frames (`hist_frames`)")] = 1
    tail_frames: Annotated[Frames, Field(ge=1, description="newest frames before the chunk, always read")] = 1
    candidates: Annotated[Count, Field(description="frames compared; 0 takes frames at equal steps uncompared")] = 4
    redundancy: Annotated[float, Field(description="weight of likeness to the tail (`lambda_redundancy`)")] = 2.0
    true_positions: Annotated[bool, Field(description="leave sink and chosen frames where they were")] = False

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        recent = self.reservoir_frames - self.sink_frames - len(state.frames)
        return (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - recent)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        pages, first = pages_of(group, state), state.frames[0]
        frames = np.unique(pages.frame)
        before = frames[frames < first]
        if len(before) <= self.sink_frames + 1 + self.tail_frames:
            return read(np.ones(len(pages), bool), self._ending_at_the_chunk(pages, frames))
        sink, middle = before[: self.sink_frames], before[self.sink_frames : len(before) - self.tail_frames]
        tail = before[len(before) - self.tail_frames :]
        notes = state.cache.notes
        if state.step == "step 0" or "relax" not in notes:
            notes["relax"] = self.chosen(state, sink, middle, tail)
        moved = np.concatenate([sink, notes["relax"]])
        frames = np.concatenate([moved, tail, state.frames])
        before_tail = first - self.tail_frames - len(moved) + np.arange(len(moved))
        positions = np.concatenate([moved if self.true_positions else before_tail, tail, state.frames])
        return read_frames(pages, frames, positions)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        return RECALLED if frame in state.cache.notes.get("relax", ()) else KEPT

    @staticmethod
    def _ending_at_the_chunk(pages: Pages, frames: np.ndarray) -> np.ndarray:
        return frames[-1] - len(frames) + 1 + np.searchsorted(frames, pages.frame)

    def chosen(self, state: ChunkState, sink: np.ndarray, middle: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """The frames of the middle that are read, ascending."""
        if not self.candidates:
            if len(middle) < self.memory_frames:
                return middle
            at = np.linspace(0, len(middle) - 1, self.memory_frames + 2, dtype=np.float32)[1:-1]
            return middle[at.astype(int)]
        if len(middle) <= 1:
            return middle
        candidates = self.candidates_of(middle)
        if len(candidates) == 1:
            return candidates
        scores = self.scores(state, candidates, sink, tail)
        best = np.argsort(-scores, kind="stable")[: self.memory_frames]
        return np.sort(candidates[best])

    def candidates_of(self, middle: np.ndarray) -> np.ndarray:
        """Frames at equal steps in the newer half of the middle, without its newest."""
        half = len(middle) // 2
        count = min(self.candidates, len(middle) - half)
        if count == 1:
            return middle[half : half + 1]
        steps = half + (len(middle) - 1 - half) * np.arange(count + 1) // count
        return middle[np.unique(steps)[:-1]]

    def scores(self, state: ChunkState, candidates: np.ndarray, sink: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """Likeness to the sink less `redundancy` times the likeness to the tail, of each candidate frame."""
        layers = [layer for layer, groups in enumerate(state.cache.slices) if _has_past(groups, state)]
        if not layers:  # all heads are silenced
            return np.zeros(len(candidates))
        like_tail = self._prototypes(state, layers[0], [tail])[0]
        each = self._prototypes(state, layers[0], [candidate for candidate in candidates[:, None]])
        like_sink = each @ self._prototypes(state, layers[0], [sink])[0] if len(sink) else 0
        return (like_sink - self.redundancy * (each @ like_tail)).cpu().numpy()

    @staticmethod
    def _prototypes(state: ChunkState, layer: int, sets: Sequence[np.ndarray]) -> Tensor:
        """Mean key of a layer of each set of frames, before RoPE, normalised: float32 [sets, head_dim]."""
        cache = state.cache
        means = []
        for frames in sets:
            keys = []
            for group, _ in cache.slices[layer]:
                rows = group.pages.rows_of(frames)
                if len(rows):
                    keys.append(cache.unrotated(layer, group.name, rows)[0])
            means.append(torch.cat(keys, 1).mean((0, 2, 3)).mean(0))
        return normalize(torch.stack(means), dim=-1)


def _has_past(groups: Iterable[tuple[HeadGroup, slice]], state: ChunkState) -> bool:
    """Whether some heads of a layer have pages from before the chunk: not all are silenced."""
    return any((group.pages.frame < state.frames[0]).any() for group, _ in groups)
