"""REBASE: the width is shared by a softmax of the scores (arXiv 2408.00724)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..tree import Node
from .base import Strategy

ROUNDING = 1e-9


@dataclass(frozen=True)
class Rebase(Strategy):
    """Every leaf gets a share of the width that grows with its score; the worst get nothing once it is used up.

    The paper's scores spread from 0 to 1. Where rewards do not, `scale=rank` has their ranks instead.
    """

    name = "rebase"
    help = "a share of the width for each leaf, by a softmax of the scores"
    paper = "arXiv 2408.00724"
    dropped = "better leaves have used up the width"

    temperature: Annotated[float, Field(gt=0, description="of the softmax")] = 0.2
    scale: Annotated[Literal["rank", "raw"], Field(description="ranks of the scores, or the scores")] = "rank"

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        scores = np.array([leaf.score for leaf in leaves])
        return shares(ranks(scores) if self.scale == "rank" else scores, width, self.temperature)


def shares(scores: np.ndarray, width: int, temperature: float) -> list[int]:
    """Share a width among leaves: from the best on, each its part of what is left, rounded up.

    Args:
        scores: One per leaf, [leaves].
        width: The sum of the shares.
        temperature: Of the softmax.
    """
    weights = np.exp((scores - scores.max()) / temperature)
    order = np.argsort(-scores, kind="stable")
    counts = [0] * len(scores)
    for place, leaf in enumerate(order):
        rest = float(weights[order[place:]].sum())
        counts[leaf] = math.ceil(width * float(weights[leaf]) / rest - ROUNDING) if rest else 0
        width -= counts[leaf]
    return counts


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 0, the worst, to 1, the best; equal scores have the mean of their ranks, a single one has 1."""
    if len(scores) == 1:
        return np.ones(1)
    below = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1) - 1
    return (below + equal / 2) / (len(scores) - 1)
