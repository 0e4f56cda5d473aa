"""Which earlier frames the chunks of a training clip see, as the cache policies leave them.

Training meets full and pruned caches alike, so that no policy is favoured: half of the clips see their whole history,
a quarter sees sink and window, and a quarter sees sink, anchor and some late segments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CHUNK_FRAMES = 3
SEGMENTS = 6  # per latent frame
KEPT_SEGMENTS = 6  # per chunk, of a history of the kind "hybrid"
WINDOW_FRAMES = 5

Kind = Literal["full", "window", "hybrid"]
MIXED: tuple[Kind, ...] = ("full", "full", "window", "hybrid")
FULL: tuple[Kind, ...] = ("full",)


@dataclass(frozen=True)
class History:
    """What the chunks of a clip see of the chunks before them.

    Attributes:
        kind: Everything, sink and window, or sink, anchor and some late segments.
        chunks: Chunk indices of the clip, in order; they may have gaps.
        local_prior: Whether some heads may be held to sink and anchor in a step.
    """

    kind: Kind
    chunks: tuple[int, ...]
    local_prior: bool = True

    def frames(self, position: int) -> list[int]:
        """Frames of the clip that the chunk at a position of the clip sees in whole, by their place in the clip."""
        first = CHUNK_FRAMES * self.chunks[position]
        if self.kind == "full":
            return list(range(CHUNK_FRAMES * position))
        reach = WINDOW_FRAMES if self.kind == "window" else 1
        return [
            place
            for place, number in enumerate(self._numbers()[: CHUNK_FRAMES * position])
            if number >= first - reach or place == 0
        ]

    def static_frames(self, position: int) -> list[int]:
        """Sink and anchor of the chunk at a position of the clip, by their place in the clip."""
        return sorted({0, CHUNK_FRAMES * position - 1}) if position else []

    def segments(self, position: int, rng: random.Random) -> list[tuple[int, int]]:
        """Further segments that the chunk sees, as frame and segment number; another choice in every step."""
        if self.kind != "hybrid":
            return []
        first = CHUNK_FRAMES * self.chunks[position]
        late = [
            (place, segment)
            for place, number in enumerate(self._numbers()[: CHUNK_FRAMES * position])
            if place and first - 4 <= number < first - 1
            for segment in range(SEGMENTS)
        ]
        return rng.sample(late, min(KEPT_SEGMENTS, len(late)))

    def remembered(self, chunk: int, seen: frozenset[int]) -> frozenset[int]:
        """The chunks among `seen` of which `chunk` sees a whole frame; a chunk outside the clip sees everything."""
        if chunk not in self.chunks:
            return seen
        position = self.chunks.index(chunk)
        return seen & {self.chunks[frame // CHUNK_FRAMES] for frame in self.frames(position)}

    def _numbers(self) -> list[int]:
        """Number of every frame of the clip in its stream."""
        return [CHUNK_FRAMES * chunk + frame for chunk in self.chunks for frame in range(CHUNK_FRAMES)]


def draw_history(rng: random.Random, chunks: Sequence[int], kinds: Sequence[Kind] = MIXED) -> History:
    """Draw the history of a clip.

    Args:
        rng: Source of randomness.
        chunks: Chunk indices of the clip.
        kinds: What to choose from; `FULL` trains with whole histories alone.
    """
    return History(rng.choice(list(kinds)), tuple(chunks), tuple(kinds) != FULL)
