"""Forcing-KV (arXiv 2605.09681): static and dynamic heads each keep what they use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.kernels import segment_similarity
from fkv.pages import Geometry, Heads, Pages
from fkv.parameters import Count, Frames, Share
from fkv.roles import HeadRoles

from .base import ChunkState, Policy
from .kinds import ANCHOR, KEPT, MOVED, SINK

AnchorFrames = Annotated[Frames, Field(description="last frames, kept by static heads for the next chunk")]
DynamicFrames = Annotated[Count, Field(description="0 keeps no segments by similarity; all other values are alike")]
APART_FROM = 10**8  # elements of a chunk's K and V; below, copies cost more than the memory is worth
UNGROUPED_LAYERS = 1  # layers at the input whose heads are all treated alike


@dataclass(frozen=True)
class ForcingKV(Policy):
    """The hybrid cache.

    Static heads keep sink and anchor frames. Dynamic heads also keep the segments of the previous chunk that moved
    most. The first layer keeps the same for all of its heads, and so do the first chunks.

    The kept segments are those least similar to the same segment one frame later: cosine of post-RoPE keys, dynamic
    heads flattened together, averaged over the tokens of a segment. With batch > 1 the similarity is averaged over the
    batch, and all elements share one page table (the official implementation looks at element 0 alone).

    Names of the official implementation: `anchor_frames` is `spatial_context_length`, `dynamic_anchor_frames`
    `temporal_context_length`, `dynamic_frames` `dynamic_context_length`, `segments_per_frame` `num_frame_patch`,
    `retention` `sim_retention_ratio`, `start_chunk` `ar_start`.
    """

    name = "forcing-kv"
    help = "hybrid cache: static heads keep sink + anchor, dynamic heads also the segments that moved most"
    paper = "arXiv 2605.09681"
    reading = "static heads S1 + R1 + C3, dynamic heads S1 + M1 + R1 + C3"
    compares_keys = True
    checked = "zju-jiyicheng/Forcing-KV"

    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 1
    anchor_frames: AnchorFrames = 1
    dynamic_anchor_frames: Annotated[Frames, Field(description="last frames, kept by dynamic heads")] = 1
    dynamic_frames: DynamicFrames = 1
    segments_per_frame: Annotated[Count, Field(ge=1, description="pages per latent frame")] = 6
    retention: Annotated[
        Share | Count, Field(description="segments to keep: a share of the candidates, or a number")
    ] = 0.33
    start_chunk: Annotated[Count, Field(description="index of the chunk after which head groups differ")] = 1
    similarity_layer: Annotated[Count, Field(description="layer whose dynamic heads are compared, or the next")] = 1

    def segments_of(self, geometry: Geometry) -> int:
        return self.segments_per_frame

    def kept_segments(self, frames_per_chunk: int) -> int:
        """The number of segments that dynamic heads keep, of `frames_per_chunk` candidate frames (the paper's K)."""
        candidates = frames_per_chunk * self.segments_per_frame
        wanted = self.retention if isinstance(self.retention, int) else round(candidates * self.retention)
        return min(wanted, candidates) if self.dynamic_frames else 0

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        if roles is None:
            raise ValueError(f"policy {self.name!r} needs head roles; profile the model or name a roles file")
        roles.check(geometry.layers, geometry.heads)
        grouped_layers = geometry.layers - UNGROUPED_LAYERS
        every_head = tuple(range(geometry.heads))
        return {
            "all": (every_head,) * UNGROUPED_LAYERS + ((),) * grouped_layers,
            "static": ((),) * UNGROUPED_LAYERS + roles.heads("static")[UNGROUPED_LAYERS:],
            "dynamic": ((),) * UNGROUPED_LAYERS + roles.heads("dynamic")[UNGROUPED_LAYERS:],
        }

    def apart(self, geometry: Geometry) -> bool:
        return self.similarity_layer <= UNGROUPED_LAYERS and geometry.chunk_elements >= APART_FROM

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        anchors = self._anchors(group, state.chunk)
        keep = (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - anchors)
        if group == "dynamic" and state.chunk > self.start_chunk:
            for frame, segment in self.selected(state):
                keep |= (pages.frame == frame) & (pages.segment == segment)
        return keep

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        if frame >= state.frames[0] - self._anchors(group, state.chunk - 1):
            return ANCHOR
        return MOVED if group == "dynamic" else KEPT

    def _anchors(self, group: str, chunk: int) -> int:
        """The number of last frames that a group keeps after a chunk."""
        anchors = {"static": self.anchor_frames, "dynamic": self.dynamic_anchor_frames}
        return anchors[group] if group in anchors and chunk >= self.start_chunk else max(anchors.values())

    def candidates(self, state: ChunkState) -> list[int]:
        """The frames whose segments compete: as many as a chunk has, ending where the dynamic anchor begins."""
        end = state.frames[-1] - self.dynamic_anchor_frames + 1
        return list(range(end - len(state.frames), end))

    def scores(self, state: ChunkState) -> np.ndarray | None:
        """Compare each candidate segment with the same segment of the next frame.

        Args:
            state: The chunk that has just been generated.

        Returns:
            Similarities, [candidate frames, segments]; None where there is nothing to compare: no dynamic heads, no
            anchor, or frames that are not cached as a whole.
        """
        group = state.cache.groups.get("dynamic")
        if group is None:
            return None
        layer = next((i for i, heads in enumerate(group.heads) if i >= self.similarity_layer and heads), None)
        frames = self.candidates(state)
        frames.append(frames[-1] + 1)
        if layer is None or np.isin(group.pages.frame, frames).sum() < len(frames) * self.segments_per_frame:
            return None
        keys = state.cache.keys_of(layer, "dynamic", frames)
        return segment_similarity(keys, self.segments_per_frame).cpu().numpy()

    def selected(self, state: ChunkState) -> list[tuple[int, int]]:
        """Choose the segments that dynamic heads keep by similarity.

        Where some candidates have been dropped before (the policy was switched to a moment ago), the others stay.

        Args:
            state: The chunk that has just been generated.

        Returns:
            (frame, segment) of each, ascending.
        """
        count = self.kept_segments(len(state.frames))
        frames = self.candidates(state)
        scores = self.scores(state) if count else None
        if scores is None:
            pages = state.cache.groups["dynamic"].pages
            cached = sorted(zip(pages.frame.tolist(), pages.segment.tolist(), strict=True))
            return [(frame, segment) for frame, segment in cached if frame in frames][:count]
        lowest = np.argsort(scores.reshape(-1), kind="stable")[:count]
        return [(frames[i // self.segments_per_frame], int(i % self.segments_per_frame)) for i in sorted(lowest)]
