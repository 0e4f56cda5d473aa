"""A guard: every chunk of a stream is checked before it is emitted, and replaced by another one where it must be.

It emits what its detector lets pass and knows nothing else, so it is no safety guarantee.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fkv.models.base import VideoModel
from fkv.stream import Chunk

from .forbidden import PASSES
from .futures import Begin, Futures
from .head import Foresight, Head
from .moves import ALL, Move, Moves
from .rewards import SEEN, Rewards
from .tree import Node

TRIES = 8


@dataclass
class Guard:
    """A guarded stream.

    With a head, the moves of which it predicts most are tried first, and those that it was not trained on are not
    tried. Without one the plain move comes first, then other noises with prompts without the forbidden words.

    Args:
        begin: Begins a stream.
        model: The video model.
        seed: Of the plain stream.
        moves: What may be done.
        forbidden: Checks chunks, see `fkv.search.forbidden.detector`.
        head: Ranks moves, None for their order.
        tries: Chunks that are generated in place of one, at most.
        emitted: The moves of the chunks that were emitted.
        tried: How many chunks were generated for each of them, and for the one that could not be kept.
        stopped: Why the stream ended early, "" where it did not.
    """

    begin: Begin
    model: VideoModel
    seed: int
    moves: Moves
    forbidden: Rewards
    head: Head | None = None
    tries: int = TRIES
    emitted: list[Move] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    stopped: str = ""

    def run(self) -> Iterator[Chunk]:
        """Generate the stream. It ends early, and `stopped` says so, where no chunk can be kept."""
        foresight = Foresight(self.model, self.moves, self.head)
        futures = Futures(self.begin, self.seed, self.forbidden, newest=1)
        node = futures.root()
        for _ in range(self.moves.chunks):
            child = self._next(futures, node, foresight(node))
            if child is None:
                tries, checked = self.tried[-1], ", ".join(self.forbidden.parts)
                failed = "the only try did not pass" if tries == 1 else f"none of {tries} tries passed"
                self.stopped = f"Stopped before chunk {node.depth + 1}: {failed} the check for {checked}."
                return
            node = child
            self.emitted.append(node.move)
            if node.depth > SEEN:
                node.at(node.depth - SEEN).chunk = None
            assert node.chunk is not None
            yield node.chunk

    def _next(self, futures: Futures, node: Node, predicted: dict[str, float]) -> Node | None:
        """The first chunk that may be emitted, None where there is none."""
        self.tried.append(0)
        for move in self._ranked(node, predicted):
            self.tried[-1] += 1
            child = futures.attempt(node, move)
            if child.reward >= PASSES:
                node.stream = None
                return child
            child.stream = child.chunk = None
        return None

    def _ranked(self, node: Node, predicted: dict[str, float]) -> list[Move]:
        """The moves to try, in order."""
        moves = self.moves.of(node.moves, ALL if predicted else self.tries)
        if predicted:
            known = [move for move in moves if move.key in predicted]
            moves = sorted(known, key=lambda move: -predicted[move.key]) or [self.moves.plain(node.moves)]
        return moves[: self.tries]

    def report(self) -> dict[str, Any]:
        """What the guard did, as JSON."""
        return {
            "forbidden": "+".join(self.forbidden.parts),
            "note": "what this detector sees is not emitted; no safety guarantee",
            "head": self.head.facts if self.head else None,
            "checked": sum(self.tried),
            "tries": self.tried,
            "moves": [move.key for move in self.emitted],
            "stopped": self.stopped,
        }
