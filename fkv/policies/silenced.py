"""Another policy, with some heads cut off from everything but the current chunk: what do they contribute?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fkv.pages import Geometry, Head, Heads, Pages, Reads
from fkv.roles import HeadRoles

from .base import ChunkState, Policy
from .kinds import KEPT
from .wrapper import Wrapper

SILENT = "silent"
WITHOUT = " without "


@dataclass(frozen=True)
class Silenced(Wrapper):
    """Another policy, in which some heads attend to the current chunk alone. Written `forcing-kv without 3.2+4.1`.

    Args:
        base: The policy of all other heads.
        heads: The silenced heads, ascending.

    Raises:
        ValueError: For a policy without a cache; `groups` raises it for heads that the model does not have.
    """

    heads: tuple[Head, ...]

    help = "another policy, in which some heads attend to the current chunk alone"

    def __post_init__(self) -> None:
        if self.base.caches == "none":
            raise ValueError(
                f"policy {self.base.name!r} recomputes earlier chunks, so no head can be silenced under it"
            )
        super().__post_init__()

    @property
    def title(self) -> str:
        return f"{self.base.name}{WITHOUT}{write_heads(self.heads)}"

    @property
    def unsilenced(self) -> Policy:
        return self.base

    @property
    def silenced_heads(self) -> tuple[Head, ...]:
        return self.heads

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        for layer, head in self.heads:
            geometry.check_head(layer, head)
        return self._split(self.base.groups(geometry, roles) or geometry.every_head)

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        groups = self.base.reassign_heads(state)
        return None if groups is None else self._split(groups)

    def reads(self, group: str, state: ChunkState) -> Reads | None:
        return None if group == SILENT else self.base.reads(group, state)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return np.zeros(len(pages), bool) if group == SILENT else self.base.keep_mask(group, pages, state)

    def past_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        return KEPT if group == SILENT else self.base.past_kind(group, frame, segment, state)

    def _split(self, groups: dict[str, Heads]) -> dict[str, Heads]:
        layers = range(len(next(iter(groups.values()))))
        rest = {
            name: tuple(
                tuple(head for head in heads if (layer, head) not in self.heads) for layer, heads in enumerate(by_layer)
            )
            for name, by_layer in groups.items()
        }
        silent = tuple(tuple(sorted({head for at, head in self.heads if at == layer})) for layer in layers)
        return rest | {SILENT: silent}


def silence(policy: Policy, heads: Iterable[Head]) -> Policy:
    """The policy with these heads silenced, in place of those that were; the plain policy for no heads."""
    chosen = tuple(sorted(set(heads)))
    return Silenced(policy.unsilenced, chosen) if chosen else policy.unsilenced


def silenced(policy: Policy, head: Head, silent: bool = True) -> Policy:
    """The policy with one more head silenced, or, unless `silent`, with one less."""
    heads = set(policy.silenced_heads)
    return silence(policy, heads | {head} if silent else heads - {head})


def write_heads(heads: Iterable[Head], between: str = "+") -> str:
    """Write heads as `3.2+4.1`: layer, head."""
    return between.join(f"{layer}.{head}" for layer, head in sorted(heads))


def read_heads(text: str, between: str = "+") -> tuple[Head, ...]:
    """Read heads from `3.2+4.1`. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(between)]
    if not all(re.fullmatch(r"\d{1,3}\.\d{1,3}", part) for part in parts):
        raise ValueError(
            f"heads are written LAYER.HEAD with {between!r} between them, as in 3.2{between}4.1, not {text!r:.60}"
        )
    return tuple(sorted({(int(layer), int(head)) for layer, _, head in (part.partition(".") for part in parts)}))
