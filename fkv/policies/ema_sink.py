"""Reward Forcing's sink: what leaves the window is mixed into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.parameters import Frames, Share

from .base import ChunkState
from .longlive import LongLive


@dataclass(frozen=True)
class EmaSink(LongLive):
    """Window 9 and sink 3 at relative positions; evicted frames are averaged into the sink (arXiv 2512.04678).

    Reads S3 + R3 + C3 in every pass. sink = share * sink + (1 - share) * evicted, frame by frame and token by token,
    with keys before RoPE.
    """

    name = "ema-sink"
    help = "a short window whose evicted frames are averaged into the sink"
    paper = "arXiv 2512.04678"
    reading = "S3 + R3 + C3"
    checked = "JaydenLyh/Reward-Forcing"

    window_frames: Annotated[Frames, Field(description="attended frames, those of sink and chunk included")] = 9
    relative: Annotated[bool, Field(description="read frames at positions 0, 1, 2, ...")] = True
    sink_share: Annotated[Share, Field(description="share of the old sink that stays (`compression_alpha`)")] = 0.999

    def edit(self, state: ChunkState) -> None:
        cache = state.cache
        for name, group in cache.groups.items():
            pages = group.pages
            evicted = np.flatnonzero(~self.keep_mask(name, pages, state))
            sink = np.flatnonzero(pages.frame < self.sink_frames)
            if len(evicted) != len(sink):
                continue
            evicted, sink = (rows[np.lexsort((pages.segment[rows], pages.frame[rows]))] for rows in (evicted, sink))
            for layer, heads in enumerate(group.heads):
                if not heads:
                    continue
                old, new = cache.unrotated(layer, name, sink), cache.unrotated(layer, name, evicted)
                mixed = (self.sink_share * a + (1 - self.sink_share) * b for a, b in zip(old, new, strict=True))
                cache.edit(layer, name, sink, *mixed)
