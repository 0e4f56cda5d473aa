"""The tree of a search: a node is a chunk, a path from the root is a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from fkv.stream import Chunk, Stream

from .moves import Move


@dataclass(eq=False)
class Node:
    """A chunk of one future.

    Args:
        parent: The chunk before; None for the root, which stands for the empty stream.
        move: How the chunk differs from its siblings.
        reward: Of the chunk, 0 to 1.
        score: Mean reward of the newest chunks of the path, those that are not decided yet.
        parts: What the reward is made of, by name.
        predicted: What a head predicts of the reward of children, by `Move.key`; empty without a head.
        is_judged: Whether `reward` is that of the chunk, and not what was predicted of it.
        look: What the chunk shows, as a vector of length 1; None where nobody compares.
        held: Chunk -> bytes of K and V of its pages that this node's stream holds.
        passes: Passes of the transformer that the chunk took.
        refused_passes: Passes of the chunks after it that must not be shown, and have no node.
        prompt: Under which the chunk was generated.
        chunk: What was generated; None for the root, and where nobody needs it any more.
        stream: Stands behind the chunk, until children have it.
        fate: Why the node has no children, "" where it has some or may have them.
    """

    parent: Node | None = None
    move: Move = Move()
    reward: float = 0.0
    score: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)
    is_judged: bool = True
    look: np.ndarray | None = None
    held: dict[int, int] = field(default_factory=dict)
    passes: int = 0
    refused_passes: int = 0
    prompt: str = ""
    chunk: Chunk | None = None
    stream: Stream | None = None
    fate: str = ""
    children: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.depth: int = 0 if self.parent is None else self.parent.depth + 1
        if self.parent is not None:
            self.parent.children.append(self)

    @property
    def ancestry(self) -> tuple[Node, ...]:
        """The nodes from the root to this one."""
        nodes = [self]
        while nodes[-1].parent is not None:
            nodes.append(nodes[-1].parent)
        return tuple(reversed(nodes))

    @property
    def lineage(self) -> tuple[Node, ...]:
        """The nodes from the first chunk to this one, without the root."""
        return self.ancestry[1:]

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves from the first chunk to this one."""
        return tuple(node.move for node in self.lineage)

    @property
    def path(self) -> tuple[int, ...]:
        """The noise of each chunk, see `fkv.sampler.BranchNoise`."""
        return tuple(move.noise for move in self.moves)

    def at(self, depth: int) -> Node:
        """The node of the path at a depth, 1 for the first chunk."""
        return self.lineage[depth - 1]

    def __iter__(self) -> Iterator[Node]:
        """The node and all below it."""
        yield self
        for child in self.children:
            yield from child


def score_of(parent: Node, reward: float, newest: int) -> float:
    """The mean reward of the `newest` last chunks of a path whose next chunk has a reward."""
    rewards = [*(node.reward for node in parent.lineage), reward][-newest:]
    return float(np.mean(rewards))


def best(leaves: Iterable[Node]) -> Node:
    """The leaf with the highest score, the first of several."""
    return max(leaves, key=lambda leaf: leaf.score)


def subtrees(leaves: Sequence[Node]) -> list[Node]:
    """The node of each leaf at the depth where their paths part."""
    lineages = [leaf.lineage for leaf in leaves]
    depth = next(depth for depth, nodes in enumerate(zip(*lineages, strict=True)) if len(set(nodes)) > 1)
    return [lineage[depth] for lineage in lineages]


PERCENTILE = 20  # of the distances between siblings: below that, looks are one


def sibling_distance(root: Node) -> float | None:
    """The distance between the looks of siblings that a fifth of them stays below; None where there are no siblings."""
    distances = sibling_distances(root)
    return float(np.percentile(distances, PERCENTILE)) if distances else None


def sibling_distances(root: Node) -> list[float]:
    """Cosine distances between the looks of all siblings, rising."""
    looks = [[child.look for child in node.children if child.look is not None] for node in root]
    return sorted(1 - float(a @ b) for siblings in looks for a, b in combinations(siblings, 2))
