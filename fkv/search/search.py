"""A search: leaves grow children, chunk by chunk, and what is far enough behind the leaves is decided."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fkv.cache import unique_bytes

from .futures import Cost, Grower
from .moves import Moves
from .strategies import Strategy
from .tree import Node, best

Event = tuple[Literal["made", "decided"], Node]
FORBIDDEN = "whatever follows is forbidden here"
OFF_PATH = "not on the path of the best leaf when its chunk was decided"


@dataclass(frozen=True)
class Level:
    """What one more chunk of the tree took.

    Args:
        depth: Of its nodes, 1 for the first chunk.
        leaves: How many there are.
        width: How many there could have been.
        nodes: Chunks on the paths of the leaves, each once.
        passes: Passes of the transformer, also for chunks that must not be shown.
        kv_bytes: K and V of all leaves, each shared page once.
        kv_bytes_copied: The same if every leaf had its own.
        best: Score of the best leaf.
        reward_calls: Chunks whose reward was computed, not predicted.
        seconds: Of everything.
        strategy_s: Of the strategy's decision.
    """

    depth: int
    leaves: int
    width: int
    nodes: int
    passes: int
    kv_bytes: int
    kv_bytes_copied: int
    best: float
    reward_calls: int
    seconds: float
    strategy_s: float


def check_size(width: int, lookahead: int | None, passes: int, cost: Cost) -> None:
    """Raise ValueError where a number of a search is out of range, or the passes are not enough for one stream."""
    if width < 1:
        raise ValueError(f"the width must be at least 1, not {width}")
    if lookahead is not None and lookahead < 0:
        raise ValueError(f"the lookahead must be at least 0, not {lookahead}")
    if passes < sum(cost.most):
        raise ValueError(
            f"{passes} passes are not enough for one stream of {len(cost.most)} chunks; allow at least {sum(cost.most)}"
        )


@dataclass
class Search:
    """One search.

    Args:
        strategy: Which leaves get how many children.
        moves: How siblings differ.
        grower: Makes the children.
        chunks: Length of the video.
        width: Children of all leaves together, at most.
        lookahead: A chunk is decided once the tree is that many chunks ahead of it; None decides at the end.
        passes: Passes of the transformer, at most.
        cost: What the chunks take.

    Raises:
        ValueError: A number is out of range, or the passes are not enough for one stream.
    """

    strategy: Strategy
    moves: Moves
    grower: Grower
    chunks: int
    width: int
    lookahead: int | None
    passes: int
    cost: Cost
    root: Node = field(init=False)
    levels: list[Level] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_size(self.width, self.lookahead, self.passes, self.cost)
        self.root = self.grower.root()

    def run(self) -> Iterator[Node]:
        """Search. Yields the chunks of the video in their order, each as soon as it is decided."""
        return (node for event, node in self.events() if event == "decided")

    def events(self) -> Iterator[Event]:
        """Search. Yields every chunk when it is made, and those of the video when they are decided."""
        leaves = [self.root]
        for depth in range(1, self.chunks + 1):
            leaves = yield from self._grow(leaves, depth)
            decided = depth - (self.chunks if self.lookahead is None else self.lookahead)
            if decided > 0:
                chosen = best(leaves).at(decided)
                leaves = self._keep(leaves, chosen)
                yield "decided", chosen
            self.grower.keep(leaves)
        end = best(leaves)
        self._keep(leaves, end)
        waiting = self.chunks if self.lookahead is None else min(self.lookahead, self.chunks)
        for node in end.lineage[self.chunks - waiting :]:
            yield "decided", node

    def _grow(self, leaves: Sequence[Node], depth: int) -> Generator[Event, None, list[Node]]:
        began = time.perf_counter()
        width = self._affordable(depth)
        chosen = self.strategy.expand(leaves, width, self.moves)
        decided = time.perf_counter()
        grown = []
        for leaf, moves in zip(leaves, chosen, strict=True):
            if not moves:
                _drop(leaf, leaf.fate or self.strategy.dropped)
                continue
            for child in self.grower.grow(leaf, moves):
                grown.append(child)
                yield "made", child
            if not leaf.children:
                _drop(leaf, FORBIDDEN)
        if not grown:
            raise ValueError(f"no future of {len(leaves)} goes on: {FORBIDDEN}")
        passes = sum(child.passes for child in grown) + sum(leaf.refused_passes for leaf in leaves)
        self._record(grown, width, passes, decided - began, time.perf_counter() - began)
        return grown

    def _affordable(self, depth: int) -> int:
        """The width that the passes left pay for at this depth and all later ones; one stream can always be finished.

        Raises:
            ValueError: More passes than expected were taken, and none is left.
        """
        left = self.passes - sum(level.passes for level in self.levels)
        usual, (now, *later) = self.cost.usual[depth - 1 :], self.cost.most[depth - 1 :]
        width = min(self.width, left // sum(usual), (left - sum(later)) // now)
        if width < 1:
            raise ValueError(f"the {self.passes} passes are used up before chunk {depth}; allow more")
        return width

    def _keep(self, leaves: Sequence[Node], chosen: Node) -> list[Node]:
        """The leaves below a node; the others are dropped."""
        kept = [leaf for leaf in leaves if leaf.at(chosen.depth) is chosen]
        for leaf in leaves:
            if leaf not in kept:
                _drop(leaf, OFF_PATH)
        return kept

    def _record(self, leaves: Sequence[Node], width: int, passes: int, strategy_s: float, seconds: float) -> None:
        caches = [cache for leaf in leaves if leaf.stream for cache in leaf.stream.caches]
        self.levels.append(
            Level(
                depth=leaves[0].depth,
                leaves=len(leaves),
                width=width,
                nodes=len({node for leaf in leaves for node in leaf.lineage}),
                passes=passes,
                kv_bytes=unique_bytes(caches),
                kv_bytes_copied=sum(cache.bytes() for cache in caches),
                best=best(leaves).score,
                reward_calls=sum(leaf.is_judged for leaf in leaves),
                seconds=seconds,
                strategy_s=strategy_s,
            )
        )


def _drop(leaf: Node, why: str) -> None:
    leaf.stream = None
    leaf.fate = why
