"""Full attention: every chunk attends to every earlier frame."""

from dataclasses import dataclass

import numpy as np

from ..cache import Pages
from .base import Moment, Policy


@dataclass(frozen=True)
class Full(Policy):
    """Keep everything. Memory and time per chunk grow with the stream; the reference for every other policy."""

    name = "full"
    help = "keep every earlier frame: the reference, grows without end"

    def survivors(self, group: str, pages: Pages, now: Moment) -> np.ndarray:
        return np.ones(len(pages), bool)
