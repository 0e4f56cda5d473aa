"""Saffron: go by the predicted rewards of all moves, without making their chunks (arXiv 2506.06444)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..moves import ALL, Move, Moves
from ..tree import Node
from .base import Strategy


@dataclass(frozen=True)
class Saffron(Strategy):
    """The moves with the highest predicted rewards are made, whichever leaves they belong to.

    One call of the head per leaf predicts the rewards of all its moves. The paper explores the likely ones only; moves
    have no likelihood, so all are candidates. Moves that the head was not trained on are not made. Where it knows none
    of all leaves, each goes on with its plain move.
    """

    name = "saffron"
    help = "the moves of which a trained head predicts most, without making the others"
    paper = "arXiv 2506.06444"
    dropped = "the head predicts more of the moves of other leaves"
    needs_head = True

    def expand(self, leaves: Sequence[Node], width: int, moves: Moves) -> list[list[Move]]:
        candidates = [
            (leaf.predicted[move.key], number, move)
            for number, leaf in enumerate(leaves)
            for move in moves.of(leaf.moves, ALL)
            if move.key in leaf.predicted
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        chosen: list[list[Move]] = [[] for _ in leaves]
        for _, number, move in candidates[:width]:
            chosen[number].append(move)
        if not candidates:
            for number, leaf in enumerate(leaves[:width]):
                chosen[number].append(moves.plain(leaf.moves))
        return chosen
