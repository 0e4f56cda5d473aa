"""Context Forcing: a slow memory of frames at which the video became unlike itself, before a fast one of the newest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Frames
from fkv.roles import HeadRoles

from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK
from .positions import pages_of, read_frames


@dataclass(frozen=True)
class ContextForcing(Policy):
    """Reads S3 + M12 + R3 + C3 at positions 0 to 20 (arXiv 2602.06028, TIGER-AI-Lab/Context-Forcing).

    Each layer has a memory of its own. The first frame of a chunk enters it in the first pass whose keys are unlike
    those of the pass before, by the cosine of their means before RoPE. The oldest frame leaves a full memory; where one
    is not full, its places hold the frames that the stream had there.

    Differences: the released code remembers a frame as that pass computed it, mostly the first, which sees noise,
    beside the one in the fast memory; here both are one page, clean after its chunk.
    """

    name = "context-forcing"
    help = "a memory per layer of frames at which keys changed, and a short window"
    paper = "arXiv 2602.06028"
    reading = "S3 + M12 + R3 + C3"
    compares_keys = True

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 3
    memory_frames: Annotated[Frames, Field(ge=1, description="frames of the slow memory")] = 12
    recent_frames: Annotated[
        Frames, Field(ge=1, description="newest frames, those of the chunk included (`local_attn_size`)")
    ] = 6
    threshold: Annotated[
        float, Field(ge=-1, le=1, description="likeness of keys below which a chunk is remembered (`sim_threshold`)")
    ] = 0.95

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return geometry.every_layer

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        count = len(state.frames)
        first = min(state.frames[0], self.sink_frames + self.memory_frames + max(self.recent_frames, count) - count)
        return range(first, first + count)

    def memory(self, group: str, state: ChunkState) -> list[int]:
        """Frames in a layer's memory, ascending."""
        found: list[int] = state.cache.notes.get("slow memory", {}).get(group, [])
        return found

    def places(self, group: str, state: ChunkState) -> list[int]:
        """The frame at each position that a layer reads, from 0; a remembered frame can be there twice."""
        memory, newest = self.memory(group, state), state.frames[-1]
        middle = self.sink_frames + self.memory_frames
        recent = max(middle, newest + 1 - max(self.recent_frames, len(state.frames)))
        window = [*range(self.sink_frames + len(memory), min(middle, newest + 1)), *range(recent, newest + 1)]
        return [*range(min(self.sink_frames, newest + 1)), *memory, *window]

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        frames = np.array(self.places(group, state))
        return read_frames(pages_of(group, state), frames, np.arange(len(frames)))

    def selects(self, step: str, state: ChunkState) -> bool:
        return step == "context" or step.startswith("step")

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        group, notes = f"layer {layer}", state.cache.notes
        heads, keys = state.cache.groups[group].heads[layer], self.mean_key(group, layer, state)
        others, before = notes.setdefault("keys before", {}).get(group, (None, keys))
        notes["keys before"][group] = heads, keys
        if others != heads or state.frames[0] < self.recent_frames or self.likeness(keys, before) >= self.threshold:
            return
        memory = self.memory(group, state)
        if state.frames[0] not in memory:
            notes.setdefault("slow memory", {})[group] = [*memory, state.frames[0]][-self.memory_frames :]

    def mean_key(self, group: str, layer: int, state: ChunkState) -> Tensor:
        """The mean of a chunk's keys before RoPE, float32 [batch, heads * head_dim]."""
        rows = pages_of(group, state).rows_of(state.frames)
        keys, _ = state.cache.unrotated(layer, group, rows)
        return keys.mean((2, 3)).flatten(1)

    def likeness(self, keys: Tensor, before: Tensor) -> float:
        """Cosine of two `mean_key`s."""
        return float(cosine_similarity(keys, before).mean())

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        memory = self.memory(group, state)
        waiting = (pages.frame >= self.sink_frames + len(memory)) & (
            pages.frame < self.sink_frames + self.memory_frames
        )
        recent = pages.frame > state.frames[-1] - max(0, self.recent_frames - len(state.frames))
        return (pages.frame < self.sink_frames) | np.isin(pages.frame, memory) | waiting | recent

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        return RECALLED if frame in self.memory(group, state) else KEPT
