"""Beam search: the best leaves share the width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..tree import Node
from .base import Strategy, ranked, spread


@dataclass(frozen=True)
class Beam(Strategy):
    """The best leaves go on with equally many children, the root of the width in number if `beams` is 0."""

    name = "beam"
    help = "the best leaves go on, with equally many children"
    dropped = "not among the best of its depth"

    beams: Annotated[int, Field(ge=0, description="leaves that go on; 0 for the square root of the width")] = 0

    def children(self, leaves: Sequence[Node], width: int) -> list[int]:
        count = min(self.beams or math.ceil(math.sqrt(width)), width, len(leaves))
        shares = dict(zip(ranked(leaves)[:count], spread(width, count), strict=True))
        return [shares.get(i, 0) for i in range(len(leaves))]
