"""Prompt adherence: how much of what a prompt says the oracle finds in a stream, over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from fkv.models.base import VideoModel
from fkv.models.frames import to_frames
from fkv.stream import Chunk, video_of
from fkv.world import FPS, oracle, witness
from fkv.world.captions import Scene
from fkv.world.captions import parse as parse_caption
from fkv.world.story import CHUNK
from fkv.world.tensors import to_pixels

# Seconds at which adherence is read, over the `WINDOW_SECONDS` before.
MARKS = (5, 30, 60)
WINDOW_SECONDS = 5


def marks(seconds: float) -> list[float]:
    """Return the seconds at which adherence is read: `MARKS` within the stream, and its end."""
    return sorted({*(mark for mark in MARKS if mark < seconds), seconds})


def adherence(video: np.ndarray, scene: Scene, seconds: float, events: bool = False) -> dict[str, dict[str, float]]:
    """Measure how much of a scene the oracle finds in the seconds before each mark.

    Args:
        video: uint8 [T, H, W, 3].
        scene: The scene that the prompt describes.
        seconds: Length of the video.
        events: Whether things may reverse at chunk borders, as in a model of the memory world.

    Returns:
        For each of `marks` (as text) and each word of the scene, the share that is found.
    """
    found = {}
    for mark in marks(seconds):
        start = max(0, round((mark - WINDOW_SECONDS) * FPS))
        found[f"{mark:g}"] = oracle.agreement(scene, _read(video[start : round(mark * FPS)], start, events))
    return found


def _read(frames: np.ndarray, first: int, events: bool) -> oracle.Reading:
    """Read frames that begin with the stream's video frame `first`."""
    return witness.read(frames, first) if events else oracle.read(frames)


def adherence_by_scene(chunks: Sequence[Chunk], events: bool = False) -> dict[str, dict[str, float]]:
    """Measure adherence at the end of every prompt of a stream, over `WINDOW_SECONDS` of it at most.

    Args:
        chunks: Decoded chunks of one stream, whose prompts are captions of the toy world.
        events: As in `adherence`.

    Returns:
        The end of each prompt in seconds, as text -> the share of what it says that the oracle reads, by word.
    """
    begins = [i for i, chunk in enumerate(chunks) if i == 0 or chunk.prompt != chunks[i - 1].prompt]
    found = {}
    for begin, end in zip(begins, [*begins[1:], len(chunks)], strict=True):
        first = max(begin, end - math.ceil(WINDOW_SECONDS * FPS / CHUNK))
        reading = _read(video_of(chunks[first:end]), first * CHUNK, events)
        found[f"{end * CHUNK / FPS:g}"] = oracle.agreement(parse_caption(chunks[begin].prompt), reading)
    return found


def oracle_accuracy(model: VideoModel, samples: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure the oracle itself on renders and on the codec's reconstructions of them: the upper bound of adherence.

    For a model of the memory world, that is the oracle of that world.

    Raises:
        ValueError: The model has no codec to encode with.
    """
    codec = getattr(model.decoder, "codec", None)
    if codec is None:
        raise ValueError(f"model {model.name!r} has no codec to encode renders with; use the tiny model")

    @torch.inference_mode()
    def through(video: np.ndarray) -> np.ndarray:
        parameter = next(codec.parameters())
        return to_frames(codec.decode(codec.encode(to_pixels(video)[None].to(parameter)))[0][0])

    measured = witness if model.transformer.events else oracle
    return {"renders": measured.accuracy(samples, seed), "codec": measured.accuracy(samples, seed, through=through)}
