"""Diverse verifier tree search: subtrees that do not compete (Hugging Face, "Scaling test-time compute", 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..tree import Node, subtrees
from .base import Strategy, ranked, spread


@dataclass(frozen=True)
class Dvts(Strategy):
    """A single leaf begins as many subtrees as the root of the width; each goes on from its best leaf alone."""

    name = "dvts"
    help = "subtrees that do not compete, each of which goes on from its best leaf"
    dropped = "not the best of its subtree"

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        if len(leaves) == 1:
            return [math.ceil(math.sqrt(width))]
        counts = [0] * len(leaves)
        own = subtrees(leaves)
        order = ranked(leaves)
        going = list({own[leaf]: leaf for leaf in reversed(order)}.values())  # the best leaf of each subtree
        going.sort(key=order.index)
        for leaf, share in zip(going, spread(width, len(going)), strict=True):
            counts[leaf] = share
        return counts
