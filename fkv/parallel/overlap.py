"""Decoding each chunk while the next one is generated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

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
    """A model's decoder in a thread and, on a GPU, on a CUDA stream of its own; it decodes one stream's chunks in order.

    Raises ValueError for a model without a decoder.
    """

    def __init__(self, model: VideoModel) -> None:
        if model.decoder is None:
            raise ValueError(
                "--overlap decodes each chunk while the next one is generated, and there is no decoder; leave it out"
            )
        device = model.device
        self._decoder, self._state = model.decoder, None
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Chunks of a stream that does not decode (`Stream(..., decode=False)`) -> the same with their video, each one chunk later.

        Their `timings.decode` is the time for which decoding was waited for; what it took beside the next chunk is in that one's stages.
        """
        before: tuple[Chunk, Future[np.ndarray]] | None = None
        with ThreadPoolExecutor(1) as thread:
            for chunk in chunks:
                now = chunk, thread.submit(self._decode, chunk)
                if before:
                    yield _waited_for(*before)
                before = now
            if before:
                yield _waited_for(*before)

    def _decode(self, chunk: Chunk) -> np.ndarray:
        # `Stream.step` has waited for the latents, and the video is copied to the host here: no event is needed on either side.
        with torch.cuda.stream(self._beside) if self._beside else nullcontext():
            video, self._state = self._decoder(chunk.latents[:1], self._state)
        return video


def _waited_for(chunk: Chunk, video: Future[np.ndarray]) -> Chunk:
    began = time.perf_counter()
    done = video.result()
    return replace(chunk, video=done, timings=replace(chunk.timings, decode=time.perf_counter() - began))
