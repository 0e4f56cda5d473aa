"""What can be said of the pictures of a live run while it goes on: how far their colours drift, how far A is from B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fkv.analysis.measures import colour_distance, colour_shares
from fkv.comparison import psnr
from fkv.stream import Chunk

PRECISION = 4  # decimals that the page is sent


class Quality:
    """Measures the chunks of a run, in order; the colours of a stream are compared with those that its prompt began
    with."""

    def __init__(self) -> None:
        self._prompt: str | None = None
        self._first: dict[str, np.ndarray] = {}

    def of(self, chunks: Mapping[str, Chunk]) -> dict[str, Any]:
        """Measure the newest chunk of every stream.

        Args:
            chunks: By name of the stream, with video.

        Returns:
            `drift`, by stream the distance of its colours from those of the first chunk under this prompt, from 0
            (equal) to 1 (nothing shared); and, of two streams, `psnr` between them in dB, None where they are equal.
        """
        prompt = next(iter(chunks.values())).prompt
        videos = {name: chunk.video for name, chunk in chunks.items() if chunk.video is not None}
        shares = {name: colour_shares(video) for name, video in videos.items()}
        if prompt != self._prompt:
            self._prompt, self._first = prompt, shares
        for name, share in shares.items():  # of a stream that begins later
            self._first.setdefault(name, share)
        apart = {name: round(colour_distance(self._first[name], share), PRECISION) for name, share in shares.items()}
        if len(videos) < 2:
            return {"drift": apart}
        decibels = psnr(*videos.values())
        return {"drift": apart, "psnr": None if decibels is None else round(decibels, PRECISION)}
