"""Recency Forcing, training-free: older chunks weigh less in the denoising passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from fkv.pages import Reads

from .base import ChunkState
from .near_sink import NearSink
from .positions import pages_of


@dataclass(frozen=True)
class Recency(NearSink):
    """A window with a near sink and a log weight that falls with a chunk's distance (arXiv 2609.19729, appendix B).

    Reads S3 + R15 + C3 in every pass. In denoising step k, from 0, history at a distance of d chunks has the log weight
    -strength * t ** (0.1 * 2 ** (k + 1)) with t = min(1, max(0, d - 1) / 4). The sink and the newest two chunks weigh
    as usual, and so does everything in the context pass.
    """

    name = "recency"
    help = "a window whose older chunks weigh less in the denoising passes"
    paper = "arXiv 2609.19729"
    family = "released"
    reading = "S3 + R15 + C3"
    checked = "Dwell-Jing/commit-forcing"

    strength: Annotated[float, Field(ge=0, description="how much less the farthest chunks weigh, as a log weight")] = (
        4.0
    )

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        reads = super().reads(group, state)
        kind, _, step = state.step.partition(" ")
        if kind != "step":
            return reads
        pages = pages_of(group, state)
        reads = reads or Reads(np.arange(len(pages)))
        frames = pages.frame[reads.index]
        order = np.unique(frames)
        rank = np.searchsorted(order, frames)
        distance = (len(order) - 1 - rank) // len(state.frames)
        time = np.clip((distance - 1) / 4, 0, 1)
        weight = np.where(time > 0, -self.strength * time ** (0.1 * 2.0 ** (int(step) + 1)), 0.0)
        weight = np.where(rank < self.sink_frames, 0.0, weight)
        return replace(reads, log_weight=weight) if weight.any() else reads
