"""What can be said of the pictures of a live run while it goes on: how far their colours drift, how far A is from B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fkv.analysis.measures import colour_distance, colour_shares
from fkv.comparison import psnr
from fkv.stream import Chunk, video_of

PRECISION = 4  # decimals that the page is sent


class Quality:
    """Measures the chunks of a run, of each stream in order; the colours of a stream are compared with those that its
    prompt began with."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, np.ndarray]] = {}  # of each stream, its prompt and the colours it began with
        self._alone: dict[int, np.ndarray] = {}  # by chunk, the video of the stream that has come first

    def of(self, chunks: Mapping[str, Chunk], later: bool = False) -> dict[str, Any]:
        """Measure a chunk.

        Args:
            chunks: Of each stream that has it, by name, with video.
            later: Whether the other stream will have it later.

        Returns:
            `drift`, by stream the distance of its colours from those of the first chunk under this prompt, from 0
            (equal) to 1 (nothing shared); and, once two streams have it, `psnr` between them in dB, None where they
            are equal.
        """
        drift = {name: self._drift(name, chunk.prompt, video_of([chunk])) for name, chunk in chunks.items()}
        index = next(iter(chunks.values())).index
        videos = [video_of([chunk]) for chunk in chunks.values()]
        if index in self._alone:
            videos.append(self._alone.pop(index))
        if later:
            self._alone[index] = videos[0]
        if len(videos) < 2:
            return {"drift": drift}
        decibels = psnr(*videos)
        return {"drift": drift, "psnr": None if decibels is None else round(decibels, PRECISION)}

    def _drift(self, name: str, prompt: str, video: np.ndarray) -> float:
        share = colour_shares(video)
        if name not in self._first or self._first[name][0] != prompt:
            self._first[name] = prompt, share
        return round(colour_distance(self._first[name][1], share), PRECISION)
