"""ETS: keep the leaves that are worth their nodes and look different (arXiv 2502.13575)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..tree import Node
from .base import Strategy
from .rebase import Rebase, ranks, shares


@dataclass(frozen=True)
class Ets(Strategy):
    """An integer program chooses the leaves that go on; REBASE then shares the whole width among them.

    The program weighs the part of the width that leaves would get, the nodes that they and their ancestors take, and
    how many kinds of look are covered. Looks are clusters of the newest chunks.
    """

    name = "ets"
    help = "an integer program keeps leaves that are worth their nodes and look different"
    paper = "arXiv 2502.13575"
    dropped = "the integer program left it out"

    node_price: Annotated[float, Field(ge=0, description="price of all nodes together")] = 1.0
    look_bonus: Annotated[float, Field(ge=0, description="worth of all clusters of looks together")] = 1.5
    cost: Annotated[
        Literal["bytes", "nodes"], Field(description="price nodes by the bytes of K and V held of them, or all alike")
    ] = "bytes"
    distance: Annotated[
        Annotated[float, Field(ge=0, le=2)] | None,
        Field(description="cosine distance at which clusters are cut; none: that measured for the model"),
    ] = None
    temperature: Annotated[float, Field(gt=0, description="of the softmax")] = 0.2
    scale: Annotated[Literal["rank", "raw"], Field(description="ranks of the scores, or the scores")] = "rank"

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        scores = np.array([leaf.score for leaf in leaves])
        scaled = ranks(scores) if self.scale == "rank" else scores
        worth = np.array(shares(scaled, width, self.temperature)) / width
        kept = choose(
            worth,
            {nodes: self.node_price * price for nodes, price in prices_of(leaves, self.cost).items()},
            clusters_of(leaves, self.distance),
            self.look_bonus,
        )
        counts = np.zeros(len(leaves), int)
        counts[kept] = shares(scaled[kept], width, self.temperature)
        for leaf in kept[counts[kept] == 0]:
            leaves[leaf].fate = Rebase.dropped
        return [int(count) for count in counts]


def choose(
    worth: np.ndarray, prices: Mapping[frozenset[int], float], clusters: np.ndarray, look_bonus: float
) -> np.ndarray:
    """Solve the integer program.

    Args:
        worth: Of each leaf, [leaves].
        prices: Price of the nodes that are needed as soon as one of these leaves is kept.
        clusters: Number of each leaf's cluster, from 0, [leaves].
        look_bonus: Worth of all clusters together.

    Returns:
        Numbers of the leaves to keep, at least one.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    leaves, kinds = len(worth), int(clusters.max()) + 1
    needs = list(prices)
    # Variables, all 0 or 1: leaves that are kept, nodes that are needed, clusters that are covered.
    gains = np.concatenate([worth, [-prices[need] for need in needs], np.full(kinds, look_bonus / kinds)])
    rows = [np.concatenate([np.ones(leaves), np.zeros(len(gains) - leaves)])]
    for number, need in enumerate(needs):
        for leaf in need:
            rows.append(_row(len(gains), {leaves + number: 1, leaf: -1}))
    for kind in range(kinds):
        members = np.flatnonzero(clusters == kind)
        rows.append(_row(len(gains), {leaves + len(needs) + kind: -1, **{int(leaf): 1 for leaf in members}}))
    least = np.zeros(len(rows))
    least[0] = 1
    solved = milp(
        -gains,
        constraints=LinearConstraint(np.stack(rows), least, np.inf),
        integrality=np.ones(len(gains)),
        bounds=Bounds(0, 1),
    )
    return np.flatnonzero(solved.x[:leaves] > 0.5)


def _row(length: int, values: Mapping[int, int]) -> np.ndarray:
    row = np.zeros(length)
    row[list(values)] = list(values.values())
    return row


def prices_of(leaves: Sequence[Node], cost: Literal["bytes", "nodes"]) -> dict[frozenset[int], float]:
    """Prices of the leaves and of all nodes above them, the root included, by the leaves that need them.

    Their sum is 1. Nodes that the same leaves need have one price together. By bytes, a node costs what the leaf holds
    that holds most of it; where no bytes are held, all nodes cost the same.
    """
    below: dict[Node, list[int]] = {}
    for number, leaf in enumerate(leaves):
        for node in leaf.ancestry:
            below.setdefault(node, []).append(number)
    sizes = {
        node: float(max(leaves[i].held.get(node.depth - 1, 0) for i in numbers)) for node, numbers in below.items()
    }
    if cost == "nodes" or not any(sizes.values()):
        sizes = dict.fromkeys(below, 1.0)
    total = sum(sizes.values())
    found: dict[frozenset[int], float] = {}
    for node, numbers in below.items():
        found[frozenset(numbers)] = found.get(frozenset(numbers), 0.0) + sizes[node] / total
    return found


def clusters_of(leaves: Sequence[Node], distance: float | None) -> np.ndarray:
    """The cluster of each leaf by its look, from 0: average linkage of cosine distances, [leaves].

    Without a distance, of which `fkv.search.looks` has the one of the model, every leaf is a cluster of its own.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if distance is None:
        return np.arange(len(leaves))
    looks = [leaf.look for leaf in leaves if leaf.look is not None]
    if len(leaves) < 2 or len(looks) < len(leaves):
        return np.zeros(len(leaves), int)
    return fcluster(linkage(np.stack(looks), "average", "cosine"), distance, "distance") - 1
