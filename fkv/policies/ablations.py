"""Forcing-KV with one part taken away, as in the ablations of arXiv 2605.09681."""

from __future__ import annotations

from dataclasses import dataclass

from fkv.cache import Geometry, Heads
from fkv.roles import HeadRoles, random_roles

from .forcing_kv import ForcingKV


@dataclass(frozen=True)
class NoAnchor(ForcingKV):
    """Static heads keep the sink alone: the transition into the next chunk is lost."""

    name = "no-anchor"
    help = "forcing-kv without the static heads' anchor frame (ablation)"

    anchor_frames: int = 0


@dataclass(frozen=True)
class NoDynamic(ForcingKV):
    """Dynamic heads keep what static heads keep: no segments of the previous chunk."""

    name = "no-dynamic"
    help = "forcing-kv without the dynamic heads' kept segments (ablation)"

    dynamic_frames: int = 0


@dataclass(frozen=True)
class RandomRoles(ForcingKV):
    """As many static heads per layer as the real split has, but random ones, chosen by `roles_seed`."""

    name = "random-roles"
    help = "forcing-kv with random head roles, as many static ones per layer (ablation)"

    roles_seed: int = 0

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return super().groups(geometry, roles and random_roles(roles, self.roles_seed))
