"""Forcing-KV without one of its parts, as in the ablations of arXiv 2605.09681."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fkv.pages import Geometry, Heads
from fkv.parameters import Count
from fkv.roles import HeadRoles, random_roles

from .forcing_kv import AnchorFrames, DynamicFrames, ForcingKV


@dataclass(frozen=True)
class NoAnchor(ForcingKV):
    """Static heads keep only the sink, so the transition into the next chunk is lost."""

    name = "no-anchor"
    help = "forcing-kv without the static heads' anchor frame (ablation)"
    family = "ablation"
    reading = "static heads S1 + C3, dynamic heads S1 + M1 + R1 + C3"
    checked = ""

    anchor_frames: AnchorFrames = 0


@dataclass(frozen=True)
class NoDynamic(ForcingKV):
    """Dynamic heads keep what static heads keep, without segments of the previous chunk."""

    name = "no-dynamic"
    help = "forcing-kv without the dynamic heads' kept segments (ablation)"
    family = "ablation"
    reading = "S1 + R1 + C3"
    checked = ""

    dynamic_frames: DynamicFrames = 0


@dataclass(frozen=True)
class RandomRoles(ForcingKV):
    """As many static heads per layer as the real split has, but random ones."""

    name = "random-roles"
    help = "forcing-kv with random head roles, as many static ones per layer (ablation)"
    family = "ablation"
    reading = "static heads S1 + R1 + C3, dynamic heads S1 + M1 + R1 + C3"
    checked = ""

    roles_seed: Annotated[Count, Field(description="chooses the random static heads")] = 0

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return super().groups(geometry, None if roles is None else random_roles(roles, self.roles_seed))
