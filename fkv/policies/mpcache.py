"""MPCache: pages are judged once for good; of those that stay, each head reads the few that its queries ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.cache import HeadGroup, KVCache
from fkv.kernels import frame_mass
from fkv.pages import Geometry, Heads, Pages, Reads
from fkv.parameters import Count, Frames, Share
from fkv.probe import sampled_tokens
from fkv.roles import HeadRoles

from . import page_scores
from .base import ChunkState, Policy
from .kinds import KEPT, RECALLED, SINK
from .selection import Bound, digests, frame_digests, scores, two_levels

QUERIES = 8  # of each frame, about, by which a page is judged
MOST_POSITIONS = 2**20  # beyond the last frame of the longest stream


class Choice(NamedTuple):
    """What the heads of a group read: the chunk and pass that chose, and the rows of pages, int [model heads, n]."""

    chunk: int
    step: str
    rows: np.ndarray


@dataclass(frozen=True)
class MPCache(Policy):
    """Evict once, then choose what to read (arXiv 2501.06807, zwxandy/MPCache).

    A page is judged when it is one chunk old: it goes for good where no sampled query of the chunk's context pass gives
    it `threshold` times an equal share of attention, averaged over heads. Of the pages that stay, each head reads a
    part: frames by their digests first, then pages of these frames; the first and the newest frame and the chunk
    itself always. Neighbouring layers share both, and the denoising steps share the choice of the first.

    The authors hide queries and keys from the machine that computes; only their rules are here. A choice takes time, so
    it pays in long contexts alone.
    """

    name = "mpcache"
    help = "evicts once and reads few of the pages it holds, chosen by the queries; meant for long contexts"
    paper = "arXiv 2501.06807"
    reading = "S1 + a fifth of all pages held, chosen per head + R1 + C3"

    alpha: Annotated[Share, Field(description="weight of the largest key values in the linear form")] = 0.6
    ratio1: Annotated[Share, Field(description="share of the held frames that are looked into; 1 skips this level")] = (
        0.5
    )
    ratio2: Annotated[Share, Field(description="share of the held pages that are read")] = 0.2
    bound: Annotated[Bound, Field(description="what a query is compared with: see `fkv.policies.selection`")] = "linear"
    share_layers: Annotated[Count, Field(ge=1, description="neighbouring layers with one choice and page table")] = 2
    first_layers: Annotated[Count, Field(description="first layers, each of which chooses for itself")] = 2
    reuse_steps: Annotated[bool, Field(description="the choice of the first pass serves the whole chunk")] = True
    threshold: Annotated[
        float, Field(ge=0, description="least attention on a page that stays, in equal shares; 0 evicts nothing")
    ] = 5.0
    sink_frames: Annotated[Frames, Field(description="first frames of the stream, kept for good")] = 1
    most_frames: Annotated[Frames, Field(description="age at which pages go in any case; 0 for never")] = 0
    segments_per_frame: Annotated[Count, Field(ge=1, description="pages of a latent frame")] = 6

    def segments_of(self, geometry: Geometry) -> int:
        return self.segments_per_frame

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return geometry.layer_sets(self.share_layers, self.first_layers)

    def selects(self, step: str, state: ChunkState) -> bool:
        return state.chunk > 0 and (step in ("step 0", "context") or not self.reuse_steps)

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        for group, heads in state.cache.slices[layer]:
            if group.pages.frame.min() >= state.frames[0]:
                continue  # silenced
            if state.step == "context":
                self._judge(state, layer, group, query[:, heads])
            deciding = layer == next(at for at, heads_of in enumerate(group.heads) if heads_of)
            if deciding and (state.step == "step 0" or not self.reuse_steps):
                index = self._chosen(state, layer, group, query[:, heads])
                state.cache.notes.setdefault("choice", {})[group.name] = Choice(state.chunk, state.step, index)

    def _judge(self, state: ChunkState, layer: int, group: HeadGroup, query: Tensor) -> None:
        """Note the attention on each page one chunk old, in equal shares: the most over queries and shared layers."""
        cache, pages = state.cache, group.pages
        old = pages.rows_of(range(state.frames[0] - len(state.frames), state.frames[0]))
        bins = np.full(len(pages), len(old))
        bins[old] = np.arange(len(old))
        starts = cache.geometry.tokens_per_frame * np.arange(len(state.frames))
        tokens = (starts[:, None] + sampled_tokens(cache.geometry, QUERIES)).reshape(-1)
        sampled = query.index_select(2, torch.from_numpy(tokens).to(query.device))
        keys = next(keys for other, _, keys, _ in cache.read_stored(layer) if other is group)
        mass = frame_mass(sampled, keys, torch.from_numpy(bins).to(keys.device), len(old) + 1)
        attention = len(pages) * mass.mean(1).amax((0, 1))[:-1].cpu().numpy()
        page_scores.note(state, group.name, pages[old], attention)

    def _chosen(self, state: ChunkState, layer: int, group: HeadGroup, query: Tensor) -> np.ndarray:
        """Rows of the pages that each head of the model reads, [model heads, n]; silenced heads read as the first."""
        cache, pages = state.cache, group.pages
        earlier = np.flatnonzero(pages.frame < state.frames[0])
        own = np.flatnonzero(pages.frame >= state.frames[0])
        strips = query.float().unflatten(2, (len(state.frames), cache.segments, -1)).mean((2, 4))
        _, frame = np.unique(pages.frame[earlier], return_inverse=True)
        of_pages = self._digests(cache, layer, group, earlier)
        of_frames = frame_digests(of_pages, frame, self.bound)
        frame_scores, page_scores = (scores(strips, each, self.bound, self.alpha) for each in (of_frames, of_pages))
        chosen = earlier[two_levels(frame_scores, page_scores, frame, self.ratio1, self.ratio2)]
        rows = np.concatenate([chosen, np.broadcast_to(own, (len(chosen), len(own)))], 1)
        index = np.repeat(rows[:1], cache.geometry.heads, 0)
        index[list(group.heads[layer])] = rows
        return index

    def _digests(self, cache: KVCache, layer: int, group: HeadGroup, rows: np.ndarray) -> Tensor:
        """Digests of earlier pages; those that were there a chunk ago are known."""
        pages = group.pages[rows]
        wanted = (pages.frame * MOST_POSITIONS + pages.position) * cache.segments + pages.segment
        known, found = cache.derived.get((layer, group.name), (wanted[:0], None))
        new = ~np.isin(wanted, known)
        parts = [] if found is None else [found]
        if new.any():
            parts.append(digests(cache.stored_keys(layer, group.name, rows[new]), self.bound))
            known = np.concatenate([known, wanted[new]])
        order = np.argsort(known)
        at = torch.from_numpy(order[np.searchsorted(known, wanted, sorter=order)])
        joined = torch.cat(parts, 3).index_select(3, at.to(cache.device))
        cache.derived[layer, group.name] = wanted, joined
        return joined

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        choice = state.cache.notes.get("choice", {}).get(group)
        if choice is None or choice.chunk != state.chunk or not (self.reuse_steps or choice.step == state.step):
            return None
        return Reads(choice.rows)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        keep = ~(page_scores.found(state, group, pages) < self.threshold)
        if self.most_frames:
            keep &= pages.frame > state.frames[-1] - self.most_frames
        return keep | (pages.frame < self.sink_frames)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        if frame < self.sink_frames:
            return SINK
        return RECALLED if frame < state.frames[0] - 1 else KEPT
