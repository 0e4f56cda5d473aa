"""Dummy Forcing (arXiv 2601.20499): heads are classed while the stream runs; a quarter of them forget their history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fkv.cache import Heads, KVCache, Pages

from .base import ChunkState, Policy
from .kinds import KEPT


@dataclass(frozen=True)
class DummyForcing(Policy):
    """Sink heads keep the first frames, neighbour heads the last ones, dummy heads nothing but the current chunk.

    Classes follow from the attention mass in one pass of one chunk: a head's loss as a dummy is the larger of its mass on
    the sink and on other earlier frames; the `dummy_share` of all heads with the least loss become dummies, the others what
    they look at more. Until then all heads keep sink and neighbours.

    sink_frames, neighbour_frames : frames kept. dummy_share : of all heads, 0 to 1.
    classify_chunk, classify_step : the chunk (at least 1) and the denoising step whose attention decides.
    """

    name = "dummy-forcing"
    help = "classes heads by their attention while running: sink, neighbour, and dummies without history"
    paper = "arXiv 2601.20499"

    sink_frames: int = 1
    neighbour_frames: int = 5
    dummy_share: float = 0.25
    classify_chunk: int = 1
    classify_step: int = 0

    def __post_init__(self) -> None:
        for field, least in (("sink_frames", 1), ("neighbour_frames", 1), ("classify_chunk", 1), ("classify_step", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, it is {getattr(self, field)}")
        if not 0 <= self.dummy_share <= 1:
            raise ValueError(f"dummy_share must lie between 0 and 1, it is {self.dummy_share}")

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        return None if chunk < self.classify_chunk or "dummy" in cache.groups else f"step {self.classify_step}"

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        if state.mass is None:
            return None
        frames = np.array(state.key_frames)
        sink, current = frames < self.sink_frames, frames >= state.frames[0]
        on_sink = state.mass[..., sink].sum(-1).mean(-1)
        on_others = state.mass[..., ~sink & ~current].sum(-1).mean(-1)
        kind = np.where(on_sink > on_others, "sink", "neighbour").astype(object)
        loss = np.maximum(on_sink, on_others)
        dummies = np.argsort(loss, axis=None, kind="stable")[: round(self.dummy_share * loss.size)]
        kind.reshape(-1)[dummies] = "dummy"
        return {
            name: tuple(tuple(np.flatnonzero(layer == name).tolist()) for layer in kind)
            for name in ("sink", "neighbour", "dummy")
        }

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        kind = super().page_kind(group, frame, segment, state)
        return "sink" if kind == KEPT and group != "neighbour" and frame < self.sink_frames else kind

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        sink = pages.frame < self.sink_frames
        neighbours = pages.frame > state.frames[-1] - self.neighbour_frames
        if group == "sink":
            return sink
        if group == "neighbour":
            return neighbours
        return np.zeros(len(pages), bool) if group == "dummy" else sink | neighbours
