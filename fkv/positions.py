"""RoPE positions of latent frames, in a stream without an end."""

from __future__ import annotations

from collections.abc import Sequence

from .cache import KVCache
from .kernels import rope_freqs_cis

LIMIT = 1024  # latent frames between a cached frame and the newest chunk; beyond it the cached frame moves along


class Positions:
    """The temporal position of each latent frame: its number, until a chunk is more than `LIMIT` frames ahead of it.

    A cached frame (the sink) that falls so far behind moves forward by half the limit, and its cached keys are rotated.
    """

    def __init__(self) -> None:
        self._moved: dict[int, int] = {}

    def of(self, frames: Sequence[int]) -> list[int]:
        """The position of each frame."""
        return [self._moved.get(frame, frame) for frame in frames]

    def copy(self) -> Positions:
        """The same positions, which do not change with these."""
        copied = Positions()
        copied._moved = dict(self._moved)
        return copied

    def follow(self, newest: int, caches: Sequence[KVCache]) -> None:
        """Move the cached frames that are too far behind.

        Args:
            newest: Last latent frame of the next chunk.
            caches: Whose keys are rotated; all have the same frames.
        """
        cached = caches[0].frames()
        far = [frame for frame, at in zip(cached, self.of(cached), strict=True) if newest - at >= LIMIT]
        if not far:
            return
        step = LIMIT // 2
        turn = rope_freqs_cis([step], 1, 1, caches[0].geometry.head_dim, caches[0].device)[0]
        for cache in caches:
            cache.rotate(far, turn)
        self._moved |= {frame: at + step for frame, at in zip(far, self.of(far), strict=True)}
