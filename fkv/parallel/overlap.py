"""Decode each chunk while the next one is generated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fkv.models.base import VideoModel
from fkv.stream import Chunk


def check_overlap(device: str) -> None:
    """Check that decoding can run beside generation on a device.

    Raises:
        ValueError: The device is a CPU, which generation uses completely.
    """
    if not device.startswith("cuda"):
        raise ValueError(
            f"--overlap decodes on a CUDA stream of its own, and the model would run on {device}; add --device cuda"
        )


class Overlap:
    """A model's decoder in a thread and, on a GPU, on a CUDA stream of its own.

    It decodes the chunks of one stream, in order.

    Args:
        model: Whose decoder runs.

    Raises:
        ValueError: The model has no decoder.
    """

    def __init__(self, model: VideoModel) -> None:
        if model.decoder is None:
            raise ValueError(
                "--overlap decodes each chunk while the next one is generated, and there is no decoder; leave it out"
            )
        device = model.device
        self._decoder = model.decoder
        self._state: Any = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Decode chunks, each one chunk later.

        Args:
            chunks: Of a stream that does not decode (`Stream(..., decode=False)`).

        Yields:
            The same chunks with their video. Their `timings.decode` is the time spent waiting for it; what decoding
            costs beside the next chunk is in the stages of that one.
        """
        before: tuple[Chunk, Future[np.ndarray]] | None = None
        with ThreadPoolExecutor(1) as thread:
            for chunk in chunks:
                decoding = (chunk, thread.submit(self._decode, chunk))
                if before:
                    yield _with_video(*before)
                before = decoding
            if before:
                yield _with_video(*before)

    def _decode(self, chunk: Chunk) -> np.ndarray:
        # `Stream.step` has waited for the latents, and the video is copied to the host here: no CUDA event is needed.
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            video, self._state = self._decoder(chunk.latents[:1], self._state)
        return video


def _with_video(chunk: Chunk, video: Future[np.ndarray]) -> Chunk:
    """Wait for a chunk's video and add it."""
    began = time.perf_counter()
    frames = video.result()
    return replace(chunk, video=frames, timings=replace(chunk.timings, decode=time.perf_counter() - began))
