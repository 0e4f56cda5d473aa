"""Surgery on heads: change a role or take a head's history away, stream again, and measure what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fkv.cache import Geometry, Heads, KVCache, Pages
from fkv.compare import psnr
from fkv.models.base import VideoModel
from fkv.policies import Moment, Policy
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream, check_chunks

SILENT = "silent"

Head = tuple[int, int]
"""Layer and head."""


@dataclass(frozen=True)
class Silenced(Policy):
    """Another policy, but these heads see nothing but the current chunk."""

    base: Policy
    heads: tuple[Head, ...]

    help = "another policy with the history of some heads taken away"

    def __post_init__(self) -> None:
        if self.base.caches == "none":
            raise ValueError(f"policy {self.base.name!r} computes history anew for every chunk, so none can be taken away")

    @property
    def name(self) -> str:
        return f"{self.base.name} without the history of {', '.join(f'{layer}.{head}' for layer, head in sorted(self.heads))}"

    @property
    def caches(self) -> str:
        return self.base.caches

    @property
    def segments(self) -> int:
        return self.base.segments

    def watches(self, chunk: int, cache: KVCache) -> str | None:
        return self.base.watches(chunk, cache)

    def groups(self, geometry: Geometry, roles: HeadRoles | None) -> dict[str, Heads]:
        return self._split(self.base.groups(geometry, roles) or geometry.every_head)

    def regroup(self, now: Moment) -> dict[str, Heads] | None:
        groups = self.base.regroup(now)
        return groups and self._split(groups)

    def survivors(self, group: str, pages: Pages, now: Moment) -> np.ndarray:
        return np.zeros(len(pages), bool) if group == SILENT else self.base.survivors(group, pages, now)

    def _split(self, groups: dict[str, Heads]) -> dict[str, Heads]:
        layers = range(len(next(iter(groups.values()))))
        rest = {
            name: tuple(tuple(head for head in heads if (layer, head) not in self.heads) for layer, heads in enumerate(each))
            for name, each in groups.items()
        }
        return rest | {SILENT: tuple(tuple(sorted({h for at, h in self.heads if at == layer})) for layer in layers)}


@dataclass(frozen=True)
class Effect:
    """What an operation did. psnr : per chunk against the untouched run, in dB, None where the pictures are equal."""

    operation: Literal["flip", "silence"]
    heads: tuple[Head, ...]
    psnr: tuple[float | None, ...]
    kv_bytes: int
    kv_bytes_untouched: int

    @property
    def worst(self) -> float | None:
        """The lowest PSNR of a chunk; None when nothing changed."""
        return min((value for value in self.psnr if value is not None), default=None)


def operate(
    model: VideoModel,
    policy: Policy,
    operations: Iterable[tuple[Literal["flip", "silence"], Sequence[Head]]],
    prompt: str,
    seed: int = 0,
    chunks: int = 7,
    roles: HeadRoles | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> Iterator[Effect]:
    """Stream once untouched, then once per operation on the same noise, and yield the effect of each.

    `flip` turns static heads dynamic and the other way round, which changes nothing under policies without roles; `silence`
    leaves heads only the current chunk. Silenced dynamic heads also leave the similarity that Forcing-KV selects segments by.
    Raises ValueError when there is no such head, no roles to flip, or no decoder to compare pictures.
    """
    check_chunks(chunks)
    if model.decoder is None:
        raise ValueError(f"{model.name} has no decoder, so there are no pictures to compare")
    roles = roles or model.roles

    def stream(policy: Policy, roles: HeadRoles | None) -> list[Chunk]:
        live = Stream(model, policy, prompt, seed, roles)
        made = []
        for _ in range(chunks):
            made.append(live.step())
            progress()
        return made

    untouched = stream(policy, roles)
    for operation, heads in operations:
        _check(model, heads)
        if operation == "silence":
            made = stream(Silenced(policy, tuple(heads)), roles)
        elif operation == "flip":
            made = stream(policy, _flipped(roles, heads))
        else:
            raise ValueError(f"there is no operation {operation!r}; there are flip and silence")
        change = tuple(psnr(before.video, after.video) for before, after in zip(untouched, made))
        yield Effect(operation, tuple(heads), change, made[-1].kv_bytes, untouched[-1].kv_bytes)


def _flipped(roles: HeadRoles | None, heads: Sequence[Head]) -> HeadRoles:
    if roles is None:
        raise ValueError("there are no head roles to flip; profile the model or name a roles file")
    for layer, head in heads:
        roles = roles.flipped(layer, head)
    return roles


def _check(model: VideoModel, heads: Sequence[Head]) -> None:
    layers, count = model.transformer.layers, model.transformer.heads
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < count):
            raise ValueError(f"there is no head {head} in layer {layer}; the model has {layers} layers of {count} heads")
