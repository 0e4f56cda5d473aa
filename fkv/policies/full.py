"""Full attention: every chunk attends to every earlier frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fkv.pages import Pages

from .base import ChunkState, Policy


@dataclass(frozen=True)
class Full(Policy):
    """Keep everything. Memory and time per chunk grow with the stream; the reference for every other policy."""

    name = "full"
    help = "keep every earlier frame: the reference, grows without end"
    family = "baseline"
    reading = "every earlier frame + C3"
    checked = "zju-jiyicheng/Forcing-KV"

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return np.ones(len(pages), bool)
