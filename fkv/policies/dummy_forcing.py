"""Dummy Forcing: half of all heads keep one frame of history, the others the sink or the last chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.cache import HeadGroup
from fkv.pages import Heads, Pages
from fkv.parameters import Count, Share

from .base import ChunkState, Policy
from .kinds import KEPT, SINK

CLASSES = ("sink", "neighbour", "dummy")


@dataclass(frozen=True)
class DummyForcing(Policy):
    """Classify heads once, by their attention in one context pass (arXiv 2601.20499, csguoh/DummyForcing).

    Until then all heads keep frame 0 and the last chunks. Then sink heads read S1 + C3, dummy heads R1 + C3 and
    neighbour heads R3 + C3. The cost of a head as a dummy is the larger of its shares of all heads' attention mass on
    the first and on the middle keys. The heads with the least cost become dummies; the others keep what they attend
    to more.
    """

    name = "dummy-forcing"
    help = "classes heads by their attention while running: sink, neighbour, and dummies that keep one frame"
    paper = "arXiv 2601.20499"
    reading = "sink heads S1 + C3, dummy heads R1 + C3, neighbour heads R3 + C3"
    checked = "csguoh/DummyForcing"

    dummy_heads: Annotated[
        Share | Count,
        Field(
            description="dummies: share of all heads, or their number (`num_dummy`); takes effect when a stream first "
            "classifies its heads"
        ),
    ] = 0.5
    classify_chunk: Annotated[
        Count, Field(ge=1, description="chunk whose context pass decides, from 0 (`ar_start`)")
    ] = 1
    local_chunks: Annotated[
        Count, Field(ge=1, description="last chunks of neighbour heads (`local_context_length`)")
    ] = 1

    def selects(self, step: str, state: ChunkState) -> bool:
        return step == "context" and state.chunk >= self.classify_chunk and "dummy" not in state.cache.groups

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        cache = state.cache
        first = cache.geometry.tokens_per_frame * (1 if self.classify_chunk == 1 else len(state.frames))
        rows = self.sampled_rows(layer, first // 3, query.shape[2])
        mass = np.zeros((2, cache.geometry.heads))
        for group, heads, keys, _ in cache.read(layer):
            if keys.shape[2] > query.shape[2]:  # not of heads that are silenced
                mass[:, list(group.heads[layer])] = self._mass(
                    group, query[:, heads, rows], keys, first, query.shape[2]
                )
        cache.notes.setdefault("mass", {})[layer] = mass

    @staticmethod
    def _mass(group: HeadGroup, query: Tensor, keys: Tensor, first: int, chunk: int) -> np.ndarray:
        """Attention mass on the first tokens and on those between them and the chunk, [2, heads]."""
        pages = group.pages
        page_tokens = keys.shape[2] // len(pages)
        order = np.lexsort((pages.segment, pages.frame))[:, None] * page_tokens + np.arange(page_tokens)
        keys = keys[:, :, torch.from_numpy(order.reshape(-1)).to(keys.device)]
        scores = query.float() @ keys.float().transpose(2, 3) * query.shape[3] ** -0.5
        mass = scores.softmax(-1).mean((0, 2))
        first = min(first, mass.shape[1] - chunk)  # after a switch fewer frames may be cached
        sink, middle, _ = mass.split([first, mass.shape[1] - first - chunk, chunk], 1)
        return torch.stack([sink.sum(1), middle.sum(1)]).cpu().numpy()

    def sampled_rows(self, layer: int, count: int, tokens: int) -> Tensor:
        """Query rows of the chunk that are looked at, drawn with replacement: int64 [count]."""
        return torch.randint(tokens, (count,), generator=torch.Generator().manual_seed(layer))

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        mass = state.cache.notes.pop("mass", None)
        if mass is None:
            return None
        classes = self.classes(np.stack([mass[layer] for layer in sorted(mass)], 1))
        return {
            name: tuple(tuple(np.flatnonzero(layer == i).tolist()) for layer in classes)
            for i, name in enumerate(CLASSES)
        }

    def classes(self, mass: np.ndarray) -> np.ndarray:
        """Class of every head, an index into `CLASSES`: [layers, heads].

        Args:
            mass: Attention mass on the first and on the middle keys, [2, layers, heads].
        """
        total = mass.sum((1, 2), keepdims=True)  # 0 where all heads are silenced
        sink, middle = mass / np.where(total > 0, total, 1)
        cost = np.maximum(sink, middle)
        count = self.dummy_heads if isinstance(self.dummy_heads, int) else round(self.dummy_heads * cost.size)
        classes = np.where(sink < middle, CLASSES.index("neighbour"), CLASSES.index("sink"))
        classes.reshape(-1)[np.argsort(cost, axis=None, kind="stable")[:count]] = CLASSES.index("dummy")
        return classes

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        last = state.frames[-1]
        local = pages.frame > last - self.local_chunks * len(state.frames)
        masks = {"sink": pages.frame == 0, "neighbour": local, "dummy": pages.frame == last}
        return masks.get(group, (pages.frame == 0) | local)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return SINK if frame == 0 else KEPT
