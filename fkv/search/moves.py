"""Moves: how siblings differ. A move is a noise and changes of the stream, as a storyboard has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fkv.storyboard import Change, Storyboard

STREAM = "A"  # the one stream of a search, in storyboards


@dataclass(frozen=True)
class Move:
    """How a chunk begins.

    Args:
        noise: Its branch, see `fkv.sampler.BranchNoise`; 0 for the noise of the plain stream.
        changes: What changes with it.
    """

    noise: int = 0
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Moves:
    """The moves of a search.

    Args:
        story: What changes in every future.
    """

    story: Storyboard = Storyboard()

    def of(self, path: Sequence[Move], count: int) -> list[Move]:
        """The moves of a node's children.

        Args:
            path: The moves up to the node.
            count: How many children it may have.

        Returns:
            At most `count` moves, the plain one first.
        """
        changes = tuple(self.story.changes(len(path)))
        return [Move(noise, changes) for noise in range(count)]
