"""Best-of-N: several futures side by side, and the best one stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..moves import Move, Moves
from ..tree import Node
from .base import Strategy, ranked


@dataclass(frozen=True)
class BestOf(Strategy):
    """One leaf becomes as many futures as the width allows; several go on, each with one child and another move.

    With a lookahead a single leaf is left whenever a chunk has been emitted, and the futures begin anew behind it.
    """

    name = "best-of"
    help = "as many futures as the width, each on its own; the best one stays"
    dropped = "the width no longer pays for it"

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        if len(leaves) == 1:
            return [width]
        going = set(ranked(leaves)[:width])
        return [int(i in going) for i in range(len(leaves))]

    def expand(self, leaves: Sequence[Node], width: int, moves: Moves) -> list[list[Move]]:
        if len(leaves) == 1:
            return super().expand(leaves, width, moves)
        chosen: list[list[Move]] = [[] for _ in leaves]
        going = [i for i, count in enumerate(self.children(leaves, width)) if count]
        for place, i in enumerate(going):
            variants = moves.of(leaves[i].moves, width)
            chosen[i].append(variants[place % len(variants)])
        return chosen
