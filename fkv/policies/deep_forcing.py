"""Deep Forcing: a long sink that moves along, and the tokens in between that recent queries ask for most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.cache import KVCache
from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Count, Frames
from fkv.roles import HeadRoles

from .base import ChunkState, Policy, check_recent
from .kinds import KEPT, RECALLED, SINK
from .positions import moved, pages_of

FIRST_TURN = 21  # the released code turns the sink by 21 frames less the capacity at first, whatever the window


@dataclass(frozen=True)
class DeepForcing(Policy):
    """Reads S10 + M2 + R1 + C3 after a selection (arXiv 2512.05081, as vendored by zengqunzhao/Relax-Forcing).

    When a chunk would not fit the window, each layer keeps the sink, the newest frames and, in between, the tokens with
    the largest score by the newest queries; a page is a single token. The sink then sits right before what it was cut
    from; the chosen tokens keep their absolute positions, as released.
    """

    name = "deep-forcing"
    help = "a long sink that moves along, and the tokens in between that recent queries ask for most"
    paper = "arXiv 2512.05081"
    reading = "S10 + M2 + R1 + C3"
    checked = "zengqunzhao/Relax-Forcing"

    window_frames: Annotated[Frames, Field(ge=1, description="frames that fit, those of the chunk included")] = 21
    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 10
    capacity_frames: Annotated[Frames, Field(ge=1, description="frames left by a selection (`pc_capacity_frames`)")] = (
        16
    )
    recent_frames: Annotated[Frames, Field(ge=1, description="newest frames, kept; their queries score")] = 4
    most_uses: Annotated[Count, Field(ge=1, description="how often a token can be chosen (`pc_topc_max_reuse`)")] = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sink_frames + self.recent_frames <= self.capacity_frames <= self.window_frames:
            raise ValueError(
                f"capacity_frames ({self.capacity_frames}) must hold sink_frames ({self.sink_frames}) and "
                f"recent_frames ({self.recent_frames}) and fit window_frames ({self.window_frames})"
            )

    def segments_of(self, geometry: Geometry) -> int:
        return geometry.tokens_per_frame

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        check_recent(self.recent_frames, geometry)
        return geometry.every_layer

    def _overflows(self, state: ChunkState) -> bool:
        """Whether the chunk does not fit beside what was cached before it."""
        cache = state.cache
        cached = max(group.live for group in cache.groups.values()) / cache.segments
        return cached > self.window_frames

    def selects(self, step: str, state: ChunkState) -> bool:
        return step in ("step 0", "context")

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        cache = state.cache
        notes = cache.notes.setdefault("deep", {"queries": {}, "chosen": {}, "uses": {}, "start": 0})
        tokens = cache.geometry.tokens_per_frame
        earlier = self.recent_frames - len(state.frames)
        if state.step == "context":
            order = np.argsort(cache.order[layer])  # back to the model's, which stays when heads are silenced
            notes["queries"][layer] = query[:, order, query.shape[2] - earlier * tokens :]
            return
        if layer == 0:
            notes["chosen"] = {}
        if not self._overflows(state):
            return
        if layer == 0:
            target = state.frames[0] - self.capacity_frames
            notes["start"] += target - notes["target"] if "target" in notes else FIRST_TURN - self.capacity_frames
            notes["target"] = target
        if not cache.groups[f"layer {layer}"].heads[layer]:
            return  # all silenced
        heads = cache.heads_of(layer, f"layer {layer}")
        noted = notes["queries"].get(layer)  # of the chunk before, unless another policy watched it
        queries = query if noted is None else torch.cat([noted[:, list(cache.order[layer])], query], 2)
        notes["chosen"][f"layer {layer}"] = self._chosen(state, layer, queries[:, heads], notes)

    def _chosen(self, state: ChunkState, layer: int, queries: Tensor, notes: dict[str, Any]) -> np.ndarray:
        """Tokens between sink and newest frames that stay, as frame * tokens_per_frame + token."""
        cache, name = state.cache, f"layer {layer}"
        pages = pages_of(name, state)
        recent = state.frames[-1] + 1 - self.recent_frames
        rows = np.flatnonzero((pages.frame >= self.sink_frames) & (pages.frame < recent))
        tokens = pages.frame[rows] * cache.segments + pages.segment[rows]
        order = np.argsort(tokens)
        rows, tokens = rows[order], tokens[order]
        scores = self.scores(cache, layer, rows, queries)
        cached = set(tokens.tolist())
        uses = {token: count for token, count in notes["uses"].get(name, {}).items() if token in cached}
        allowed = np.array([uses.get(token, 0) < self.most_uses for token in tokens.tolist()], dtype=bool)
        count = (self.capacity_frames - self.sink_frames - self.recent_frames) * cache.segments
        best = np.argsort(-np.where(allowed, scores, -np.inf), kind="stable")[: min(count, allowed.sum())]
        chosen = np.sort(tokens[best])
        for token in chosen.tolist():
            uses[token] = uses.get(token, 0) + 1
        notes["uses"][name] = uses
        return chosen

    def scores(self, cache: KVCache, layer: int, rows: np.ndarray, queries: Tensor) -> np.ndarray:
        """How much the queries ask for each cached token, summed over queries and heads, [rows]."""
        keys = cache.stored_keys(layer, f"layer {layer}", rows).flatten(2, 3)
        heads, size = queries.shape[1], queries.shape[3]
        score = torch.einsum("bhd,bhnd->n", queries.float().sum(2), keys.float())
        return (score / (size**0.5 * heads)).cpu().numpy()

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        notes = state.cache.notes.get("deep")
        if not notes or not notes["start"] and group not in notes["chosen"]:
            return None
        pages = pages_of(group, state)
        sink = np.arange(self.sink_frames)
        positions = moved(pages, sink, notes["start"] + sink)
        index = np.flatnonzero(self._stays(group, pages, state))
        return Reads(index, positions[index])

    def _stays(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        """Which pages are left after the selection of this chunk, if there was one."""
        chosen = state.cache.notes.get("deep", {}).get("chosen", {}).get(group)
        recent = state.frames[-1] + 1 - self.recent_frames
        if chosen is None and not self._overflows(state):
            return np.ones(len(pages), bool)
        if chosen is None:  # no pass has chosen, as where only the sizes of a stream count
            return (pages.frame < self.sink_frames) | (
                pages.frame > state.frames[-1] - (self.capacity_frames - self.sink_frames)
            )
        tokens = pages.frame * state.cache.segments + pages.segment
        return (pages.frame < self.sink_frames) | (pages.frame >= recent) | np.isin(tokens, chosen)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return self._stays(group, pages, state)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        selected = bool(state.cache.notes.get("deep", {}).get("start"))
        return RECALLED if selected and frame < state.frames[0] - self.recent_frames else KEPT
