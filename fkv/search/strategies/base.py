"""What a strategy is: it decides how many children each leaf gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fkv.parameters import check_fields

from ..moves import Move, Moves
from ..tree import Node


@dataclass(frozen=True)
class Strategy:
    """Base of all strategies: a frozen dataclass whose fields are its parameters.

    Subclasses override `children`, or `expand` where they choose moves themselves. Leaves are chunks of the same depth,
    and the root at first.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    dropped: ClassVar[str]
    """Why a leaf has no children, in words, where the strategy gives it no `fate` of its own."""
    needs_head: ClassVar[bool] = False
    """Whether it goes by what a head predicts, see `fkv.search.head`."""

    def __post_init__(self) -> None:
        check_fields(self)

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        """Decide how many children each leaf gets.

        Args:
            leaves: At least one.
            width: Number of children of all leaves together, at least 1.

        Returns:
            A number per leaf. Their sum is 1 to `width`.
        """
        raise NotImplementedError

    def expand(self, leaves: Sequence[Node], width: int, moves: Moves) -> list[list[Move]]:
        """Decide the moves of each leaf's children; see `children`."""
        counts = self.children(leaves, width)
        return [moves.of(leaf.moves, count) for leaf, count in zip(leaves, counts, strict=True)]


def spread(width: int, parts: int) -> list[int]:
    """Split a width into parts that differ by 1 at most, the larger ones first."""
    return [width // parts + (part < width % parts) for part in range(parts)]


def ranked(leaves: Sequence[Node]) -> list[int]:
    """Numbers of the leaves, the highest score first; equal ones in their order."""
    return sorted(range(len(leaves)), key=lambda i: -leaves[i].score)
