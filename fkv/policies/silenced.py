"""Another policy with the history of some heads taken away: what do they contribute?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from fkv.cache import Geometry, Heads, KVCache, Pages
from fkv.roles import HeadRoles

from .base import ChunkState, Policy

SILENT, WITHOUT = "silent", " without "

Head = tuple[int, int]
"""Layer and head."""


@dataclass(frozen=True)
class Silenced(Policy):
    """Another policy, but these heads see nothing but the current chunk. Written `forcing-kv without 3.2+4.1`.

    Raises ValueError for a policy that computes history anew; its groups do for heads that the model has not.
    """

    base: Policy
    heads: tuple[Head, ...]

    help = "another policy with the history of some heads taken away"

    def __post_init__(self) -> None:
        if self.base.caches == "none":
            raise ValueError(
                f"policy {self.base.name!r} computes history anew for every chunk, so none can be taken away"
            )

    @property
    def name(self) -> str:
        return f"{self.base.name}{WITHOUT}{write_heads(self.heads)}"

    @property
    def caches(self) -> str:
        return self.base.caches

    @property
    def segments(self) -> int:
        return self.base.segments

    def stored(self, dtype: torch.dtype) -> torch.dtype:
        return self.base.stored(dtype)

    def wants_attention(self, chunk: int, cache: KVCache) -> str | None:
        return self.base.wants_attention(chunk, cache)

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        for layer, head in self.heads:
            geometry.check_head(layer, head)
        return self._split(self.base.groups(geometry, roles) or geometry.every_head)

    def reassign_heads(self, state: ChunkState) -> dict[str, Heads] | None:
        groups = self.base.reassign_heads(state)
        return groups and self._split(groups)

    def keep_mask(self, group: str, pages: Pages, state: ChunkState) -> np.ndarray:
        return np.zeros(len(pages), bool) if group == SILENT else self.base.keep_mask(group, pages, state)

    def page_kind(self, group: str, frame: int, segment: int, state: ChunkState) -> str:
        policy = super() if group == SILENT else self.base
        return policy.page_kind(group, frame, segment, state)

    def _split(self, groups: dict[str, Heads]) -> dict[str, Heads]:
        layers = range(len(next(iter(groups.values()))))
        rest = {
            name: tuple(
                tuple(head for head in heads if (layer, head) not in self.heads) for layer, heads in enumerate(each)
            )
            for name, each in groups.items()
        }
        return rest | {SILENT: tuple(tuple(sorted({h for at, h in self.heads if at == layer})) for layer in layers)}


def silenced(policy: Policy, head: Head, silent: bool = True) -> Policy:
    """A policy with the history of one more head taken away, or, unless `silent`, of one less."""
    base, heads = (policy.base, policy.heads) if isinstance(policy, Silenced) else (policy, ())
    left = {*heads, head} if silent else {*heads} - {head}
    return Silenced(base, tuple(sorted(left))) if left else base


def write_heads(heads: Iterable[Head], between: str = "+") -> str:
    """Heads as `3.2+4.1`: layer, head."""
    return between.join(f"{layer}.{head}" for layer, head in sorted(heads))


def read_heads(text: str, between: str = "+") -> tuple[Head, ...]:
    """Heads from `3.2+4.1`. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(between)]
    if not all(re.fullmatch(r"\d{1,3}\.\d{1,3}", part) for part in parts):
        raise ValueError(
            f"heads are written LAYER.HEAD with {between!r} between them, as in 3.2{between}4.1, not {text!r:.60}"
        )
    return tuple(sorted({(int(layer), int(head)) for layer, _, head in (part.partition(".") for part in parts)}))
