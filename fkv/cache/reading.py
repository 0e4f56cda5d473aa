"""What passes read of each head group, where a policy says so; else they read every page as it is stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fkv.pages import Pages, Reads

from .group import HeadGroup


class Reading:
    """What passes read of the head groups of a cache.

    Attributes:
        chosen: Name of a group -> what is read of it, of those of which not every page is read as it is stored.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, Reads] = {}

    def choose(self, reads: Mapping[str, Reads | None]) -> None:
        """Choose what passes read of the named groups from now on; None reads every page as it is stored."""
        for name, each in reads.items():
            if each is None:
                self.chosen.pop(name, None)
            else:
                self.chosen[name] = each

    def pages(self, group: HeadGroup, head: int | None = None) -> Pages:
        """The pages that a pass reads of a group, in key order, at the positions where it reads them.

        Args:
            group: The group.
            head: One of its heads. Without, where heads read different pages, those that any of them reads.
        """
        reads = self.chosen.get(group.name)
        return group.pages if reads is None else reads.of(group.pages, head)

    def by_head(self, group: HeadGroup) -> bool:
        """Whether the heads of a group read different pages."""
        return group.name in self.chosen and self.chosen[group.name].by_head

    def parted(self, group: HeadGroup, layer: int) -> list[slice]:
        """Slices of a group's heads in a layer that read the same pages."""
        count = len(group.heads[layer])
        return [slice(at, at + 1) for at in range(count)] if self.by_head(group) else [slice(0, count)]

    def log_weights(self, group: HeadGroup) -> np.ndarray | None:
        """Log weight of each page that is read of a group, float [pages]; None where all weigh alike."""
        reads = self.chosen.get(group.name)
        return None if reads is None else reads.log_weight

    @property
    def weighted(self) -> bool:
        """Whether a pass weighs some pages more than others."""
        return any(reads.log_weight is not None for reads in self.chosen.values())
