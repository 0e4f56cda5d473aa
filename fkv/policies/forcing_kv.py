"""Forcing-KV (arXiv 2605.09681): static and dynamic heads each keep what they use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fkv.cache import Geometry, Heads, Pages
from fkv.kernels import segment_similarity
from fkv.roles import HeadRoles

from .base import ChunkState, Policy
from .kinds import KEPT


@dataclass(frozen=True)
class ForcingKV(Policy):
    """The hybrid cache. Static heads keep sink + anchor frames; dynamic heads keep sink + the segments of the previous
    chunk that changed most + anchor frames. The first layer and the first chunks keep the same for all heads.

    sink_frames : first latent frames, kept for good.
    anchor_frames : last frames kept by static heads, the transition into the next chunk (`spatial_context_length`).
    dynamic_anchor_frames : last frames kept by dynamic heads (`temporal_context_length`).
    dynamic_frames : the most that kept segments may amount to, in frames; 0 keeps none (`dynamic_context_length`).
    segments_per_frame : P, pages per frame (`num_frame_patch`).
    retention : share of the candidate segments to keep, in (0, 1), or a whole number of segments (`sim_retention_ratio`).
    start_chunk : the chunk at whose end head groups part; segments are selected from the next chunk on (`ar_start`).
    similarity_layer : the layer whose dynamic heads' keys are compared; the next one that has any, if it has none.

    Kept segments are the K least similar to the same segment one frame later: cosine of post-RoPE keys, dynamic heads
    flattened together, averaged over a segment's tokens. With batch > 1 the similarity is averaged over the batch, and
    all elements share one page table (the official implementation looks at element 0 alone).
    """

    name = "forcing-kv"
    help = "hybrid cache: static heads keep sink + anchor, dynamic heads also the segments that moved most"
    paper = "arXiv 2605.09681"

    sink_frames: int = 1
    anchor_frames: int = 1
    dynamic_anchor_frames: int = 1
    dynamic_frames: int = 1
    segments_per_frame: int = 6
    retention: float | int = 0.33
    start_chunk: int = 1
    similarity_layer: int = 1

    def __post_init__(self) -> None:
        for field in (
            "sink_frames",
            "anchor_frames",
            "dynamic_anchor_frames",
            "dynamic_frames",
            "start_chunk",
            "similarity_layer",
        ):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative, it is {getattr(self, field)}")
        if self.segments_per_frame < 1:
            raise ValueError(f"segments_per_frame must be at least 1, it is {self.segments_per_frame}")
        if not (isinstance(self.retention, int) and self.retention >= 0 or 0 <= self.retention <= 1):
            raise ValueError(
                f"retention must be a share between 0 and 1 or a whole number of segments, it is {self.retention}"
            )

    @property
    def segments(self) -> int:
        return self.segments_per_frame

    def kept_segments(self, frames_per_chunk: int) -> int:
        """K, the number of segments that dynamic heads keep of `frames_per_chunk` candidate frames."""
        candidates = frames_per_chunk * self.segments_per_frame
        wanted = self.retention if isinstance(self.retention, int) else round(candidates * self.retention)
        return min(wanted, candidates) if self.dynamic_frames else 0

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        if roles is None:
            raise ValueError(f"policy {self.name!r} needs head roles; profile the model or name a roles file")
        roles.check(geometry.layers, geometry.heads)
        ungrouped, every, none = 1, tuple(range(geometry.heads)), ()
        static, dynamic = roles.heads("static"), roles.heads("dynamic")
        return {
            "all": (every,) * ungrouped + (none,) * (geometry.layers - ungrouped),
            "static": (none,) * ungrouped + static[ungrouped:],
            "dynamic": (none,) * ungrouped + dynamic[ungrouped:],
        }

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        anchors = self._anchors(group, state.chunk)
        keep = (pages.frame < self.sink_frames) | (pages.frame > state.frames[-1] - anchors)
        if group == "dynamic" and state.chunk > self.start_chunk:
            for frame, segment in self.selected(state):
                keep |= (pages.frame == frame) & (pages.segment == segment)
        return keep

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        kind = super().page_kind(group, frame, segment, state)
        if kind != KEPT:
            return kind
        if frame < self.sink_frames:
            return "sink"
        if frame >= state.frames[0] - self._anchors(group, state.chunk - 1):
            return "anchor"
        return "moved" if group == "dynamic" else KEPT

    def _anchors(self, group: str, chunk: int) -> int:
        """Frames before the end of a chunk that a group keeps when the chunk has been generated."""
        anchors = {"static": self.anchor_frames, "dynamic": self.dynamic_anchor_frames}
        return anchors[group] if group in anchors and chunk >= self.start_chunk else max(anchors.values())

    def candidates(self, state: ChunkState) -> list[int]:
        """The frames whose segments compete: a chunk's worth that ends where the dynamic anchor begins."""
        end = state.frames[-1] - self.dynamic_anchor_frames + 1
        return list(range(end - len(state.frames), end))

    def scores(self, state: ChunkState) -> np.ndarray | None:
        """Similarity of each candidate segment to the next frame's, [candidate frames, segments].

        None where there is nothing to compare: no dynamic heads, no anchor, or frames that are no longer held whole.
        """
        group = state.cache.groups.get("dynamic")
        layer = (
            next((i for i, heads in enumerate(group.heads) if i >= self.similarity_layer and heads), None)
            if group
            else None
        )
        frames = self.candidates(state)
        frames.append(frames[-1] + 1)
        if layer is None or (np.isin(group.pages.frame, frames)).sum() < len(frames) * self.segments:
            return None
        keys = state.cache.keys_of(layer, "dynamic", frames)
        return segment_similarity(keys, self.segments).cpu().numpy()

    def selected(self, state: ChunkState) -> list[tuple[int, int]]:
        """(frame, segment) of the segments that dynamic heads keep after this chunk.

        Where candidates were dropped before (the policy has just been switched to), the ones still held stay.
        """
        count, frames = self.kept_segments(len(state.frames)), self.candidates(state)
        scores = self.scores(state) if count else None
        if scores is None:
            pages = state.cache.groups["dynamic"].pages
            return sorted((int(f), int(s)) for f, s in zip(pages.frame, pages.segment) if f in frames)[:count]
        lowest = np.argsort(scores.reshape(-1), kind="stable")[:count]
        return [(frames[i // self.segments], int(i % self.segments)) for i in sorted(lowest)]
