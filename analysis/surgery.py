"""Surgery on heads: flip a role or silence a head, stream again, and measure the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fkv.comparison import psnr
from fkv.models.base import VideoModel
from fkv.policies import Policy
from fkv.policies.silenced import Head, silence, write_heads
from fkv.roles import HeadRoles
from fkv.stream import Chunk, Stream, check_chunks, video_of


@dataclass(frozen=True)
class Effect:
    """The effect of one operation.

    Args:
        operation: `flip` or `silence`.
        heads: (layer, head) of the heads operated on.
        psnr: Per chunk against the untouched run in dB, None where the frames are equal.
        kv_bytes: Bytes of K and V while the last chunk attended.
        kv_bytes_untouched: The same of the untouched run.
    """

    operation: Literal["flip", "silence"]
    heads: tuple[Head, ...]
    psnr: tuple[float | None, ...]
    kv_bytes: int
    kv_bytes_untouched: int

    @property
    def label(self) -> str:
        """The operation in words, such as `flip 1.1`."""
        return f"{self.operation} {write_heads(self.heads, ', ')}"

    @property
    def kv_change(self) -> int:
        """Bytes of K and V more than in the untouched run."""
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

    `flip` turns static heads dynamic and dynamic heads static, which changes nothing under policies without roles.
    `silence` leaves heads only the current chunk; silenced dynamic heads do not count in the similarity by which
    Forcing-KV selects segments.

    Args:
        model: The model that streams.
        policy: The policy of all runs.
        operations: Operation and (layer, head) of the heads to operate on.
        prompt: Text of the prompt.
        seed: Chooses the noise.
        chunks: Number of chunks of each run.
        roles: Head roles; by default those of the model.
        progress: Called after every chunk.

    Raises:
        ValueError: There is no such head, no roles to flip, or no decoder, so there are no frames to compare.
    """
    check_chunks(chunks)
    if model.decoder is None:
        raise ValueError(f"{model.name} has no decoder, so there are no frames to compare")
    roles = roles or model.roles

    def stream(policy: Policy, roles: HeadRoles | None) -> list[Chunk]:
        live = Stream(model, policy, prompt, seed, roles)
        done = []
        for _ in range(chunks):
            done.append(live.step())
            progress()
        return done

    untouched = stream(policy, roles)
    for operation, heads in operations:
        for layer, head in heads:
            model.geometry.check_head(layer, head)
        if operation == "silence":
            changed = stream(silence(policy, {*policy.silenced_heads, *heads}), roles)
        elif operation == "flip":
            changed = stream(policy, _flipped(roles, heads))
        else:
            raise ValueError(f"there is no operation {operation!r}; there are flip and silence")
        pairs = zip(untouched, changed, strict=True)
        quality = tuple(psnr(video_of([before]), video_of([after])) for before, after in pairs)
        yield Effect(operation, tuple(heads), quality, changed[-1].kv_bytes, untouched[-1].kv_bytes)


def _flipped(roles: HeadRoles | None, heads: Sequence[Head]) -> HeadRoles:
    if roles is None:
        raise ValueError("there are no head roles to flip; profile the model or name a roles file")
    for layer, head in heads:
        roles = roles.flipped(layer, head)
    return roles
