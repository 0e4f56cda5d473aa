"""Dummy Forcing (arXiv 2601.20499): classify heads while the stream runs; a quarter of them attend to no history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.cache import Heads, KVCache, Pages
from fkv.parameters import Count, Frames, Share

from .base import ChunkState, Policy
from .kinds import KEPT, SINK

CLASSES = ("sink", "neighbour", "dummy")


@dataclass(frozen=True)
class DummyForcing(Policy):
    """Sink heads keep the first frames, neighbour heads the last ones, dummy heads only the current chunk.

    The attention mass in one pass of one chunk decides. The loss of a head as a dummy is the larger of its mass on the
    sink and its mass on other earlier frames; the heads with the least loss become dummies, the others keep what they
    attend to more. Until then all heads keep sink and neighbours.
    """

    name = "dummy-forcing"
    help = "classifies heads by their attention while running: sink, neighbour, and dummies without history"
    paper = "arXiv 2601.20499"

    sink_frames: Annotated[Frames, Field(ge=1, description="first frames of the stream, kept by sink heads")] = 1
    neighbour_frames: Annotated[Frames, Field(ge=1, description="last frames, kept by neighbour heads")] = 5
    dummy_share: Annotated[Share, Field(description="share of all heads that become dummies")] = 0.25
    classify_chunk: Annotated[Count, Field(ge=1, description="index of the chunk whose attention decides")] = 1
    classify_step: Annotated[Count, Field(description="denoising step of that chunk whose attention decides")] = 0

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        return None if chunk < self.classify_chunk or "dummy" in cache.groups else f"step {self.classify_step}"

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        if state.mass is None:
            return None
        frames = np.array(state.key_frames)
        sink = frames < self.sink_frames
        current = frames >= state.frames[0]
        on_sink = state.mass[..., sink].sum(-1).mean(-1)
        on_others = state.mass[..., ~sink & ~current].sum(-1).mean(-1)
        classes = np.where(on_sink > on_others, "sink", "neighbour").astype(object)
        loss = np.maximum(on_sink, on_others)
        dummies = np.argsort(loss, axis=None, kind="stable")[: round(self.dummy_share * loss.size)]
        classes.reshape(-1)[dummies] = "dummy"
        return {name: tuple(tuple(np.flatnonzero(layer == name).tolist()) for layer in classes) for name in CLASSES}

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        kind = super().page_kind(group, frame, segment, state)
        return SINK if kind == KEPT and group != "neighbour" and frame < self.sink_frames else kind

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        sink = pages.frame < self.sink_frames
        neighbours = pages.frame > state.frames[-1] - self.neighbour_frames
        if group == "sink":
            return sink
        if group == "neighbour":
            return neighbours
        if group == "dummy":
            return np.zeros(len(pages), bool)
        return sink | neighbours
