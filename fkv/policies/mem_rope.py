"""MemRoPE: what leaves the window lives on in two running means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fkv.pages import Pages
from fkv.parameters import Share

from .base import ChunkState
from .kinds import RECALLED
from .longlive import LongLive


@dataclass(frozen=True)
class MemRope(LongLive):
    """Reads S3 + M2 + R4 + C3 at positions 0 to 11 (arXiv 2603.12513, YoungRaeKimm/MemRoPE).

    A slow and a fast running mean of the evicted frames stand behind the sink, each one frame large. As released, the
    mean is one vector per head, copied to every token; frames 3 and 4, whose slots the means take, are lost.
    """

    name = "mem-rope"
    help = "a window and two running means of everything that has left it"
    paper = "arXiv 2603.12513"
    reading = "S3 + M2 + R4 + C3"
    checked = "YoungRaeKimm/MemRoPE"

    relative: Annotated[bool, Field(description="read frames at positions 0, 1, 2, ...")] = True
    long_rate: Annotated[Share, Field(description="share of the newest frames in the slow mean (`ema_alpha_long`)")] = (
        0.01
    )
    short_rate: Annotated[
        Share, Field(description="share of the newest frames in the fast mean (`ema_alpha_short`)")
    ] = 0.1
    adaptive: Annotated[bool, Field(description="average per token, the fast mean by motion (`ema_adaptive`)")] = False

    @property
    def memory(self) -> tuple[int, int]:
        """Frame numbers under which the slow and the fast mean are stored."""
        return self.sink_frames, self.sink_frames + 1

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        if state.step == "recache":  # what is left of the cache before the pass
            if state.frames[0] == 0:  # all frames are recomputed, and the means follow from them
                state.cache.notes.pop("averaged", None)
                return np.zeros(len(pages), bool)
            return pages.frame <= self.memory[1]
        recent = self.window_frames - self.sink_frames - 2 - len(state.frames)
        return (pages.frame <= self.memory[1]) | (pages.frame > state.frames[-1] - recent)

    def edit(self, state: ChunkState) -> None:
        cache = state.cache
        for name, group in cache.groups.items():
            pages = group.pages
            evicted = np.flatnonzero(~self.keep_mask(name, pages, state))
            if not len(evicted):
                continue
            first = not cache.notes.get("averaged")
            rows = [pages.rows_of([frame]) for frame in self.memory]
            if not all(len(each) for each in rows):
                continue
            for layer, heads in enumerate(group.heads):
                if not heads:
                    continue
                new = [self._mean(x, len(rows[0])) for x in cache.unrotated(layer, name, evicted)]
                long, short = (cache.unrotated(layer, name, each) for each in rows)
                fast = self._fast_rate(new[0], short[0])
                for each, old, rate in ((rows[0], long, self.long_rate), (rows[1], short, fast)):
                    mixed = [
                        n.expand_as(o) if first else rate * n + (1 - rate) * o for n, o in zip(new, old, strict=True)
                    ]
                    cache.edit(layer, name, each, *mixed)
        if any(not self.keep_mask(n, g.pages, state).all() for n, g in cache.groups.items()):
            cache.notes["averaged"] = True

    def _mean(self, x: Tensor, segments: int) -> Tensor:
        """Mean of pages, [batch, heads, pages, page_tokens, head_dim], over all tokens or, if adaptive, per token."""
        if not self.adaptive:
            return x.mean((2, 3), keepdim=True)
        return x.unflatten(2, (-1, segments)).mean(2)

    def _fast_rate(self, new_keys: Tensor, old_keys: Tensor) -> Tensor | float:
        """Share of the newest mean in the fast running mean, per token when adaptive."""
        if not self.adaptive:
            return self.short_rate
        motion = torch.linalg.vector_norm(new_keys - old_keys, dim=-1, keepdim=True).mean(1, keepdim=True)
        least, most = 0.1 * self.short_rate, 5 * self.short_rate
        return least + motion / (motion.amax((2, 3), keepdim=True) + 1e-8) * (most - least)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        averaged = frame in self.memory and bool(state.cache.notes.get("averaged"))
        return RECALLED if averaged else super().past_kind(group, frame, segment, state)
