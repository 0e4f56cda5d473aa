"""Surgery on heads: change a role or take a head's history away, stream again, and measure what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fkv.comparison import psnr
from fkv.models.base import VideoModel
from fkv.policies import Policy
from fkv.policies.silenced import Head, silence, write_heads
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream, check_chunks


@dataclass(frozen=True)
class Effect:
    """What an operation did. psnr : per chunk against the untouched run, in dB, None where the pictures are equal."""

    operation: Literal["flip", "silence"]
    heads: tuple[Head, ...]
    psnr: tuple[float | None, ...]
    kv_bytes: int
    kv_bytes_untouched: int

    @property
    def label(self) -> str:
        return f"{self.operation} {write_heads(self.heads, ', ')}"

    @property
    def kv_change(self) -> int:
        return self.kv_bytes - self.kv_bytes_untouched


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
        for layer, head in heads:
            model.geometry.check_head(layer, head)
        if operation == "silence":
            made = stream(silence(policy, {*policy.silenced_heads, *heads}), roles)
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
