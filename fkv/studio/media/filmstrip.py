"""Film strips of a comparison: one per prompt and seed, one row per policy, frames at the same moments."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import fill
from typing import Any

import cv2
import numpy as np

from fkv.comparison import evenly_spaced
from fkv.stream import Chunk

from .protocol import jpeg

MAX_HEIGHT = 120  # pixels of a frame
LETTERS = 14  # that fit above a frame of a saved picture


@dataclass(frozen=True)
class Filmstrip:
    """The frames of one prompt and seed.

    Args:
        prompt: What the videos show.
        seed: Their seed.
        at: Numbers of chunks, counted from 1.
        rows: For each policy JPEGs of the last frame of these chunks, as many as there are so far.
    """

    prompt: str
    seed: int
    at: tuple[int, ...]
    rows: Mapping[str, tuple[bytes, ...]]


def filmstrip(prompt: str, seed: int, streams: Mapping[str, Sequence[Chunk]], chunks: int) -> Filmstrip:
    """Take the frames of a strip.

    Args:
        prompt: What the videos show.
        seed: Their seed.
        streams: The chunks of each policy so far; without a decoder there are no frames.
        chunks: How many chunks each stream will have.
    """
    at = evenly_spaced(chunks)
    rows = {}
    for policy, stream in streams.items():
        videos = [stream[number - 1].video for number in at if number <= len(stream)]
        rows[policy] = tuple(_small(video[-1]) for video in videos if video is not None)
    return Filmstrip(prompt, seed, at, rows)


def _small(frame: np.ndarray) -> bytes:
    height, width = frame.shape[:2]
    scale = min(1, MAX_HEIGHT / height)
    return jpeg(cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA))


def html(strips: Sequence[Filmstrip]) -> str:
    """The strips that have frames, as HTML; a moment still to come is an empty cell."""
    return "".join(_one(strip) for strip in strips if any(strip.rows.values()))


def save(strips: Sequence[Filmstrip], chunk_seconds: float, path: Path) -> None:
    """Write the strips that have frames as one picture: a row per policy, a moment still to come is white.

    Args:
        strips: Of one comparison, so that they have the same moments.
        chunk_seconds: What a chunk lasts.
        path: Image file to write.
    """
    from fkv.analysis.evaluation_plots import filmstrips

    titles, rows = [], []
    for strip in strips:
        for policy, jpegs in strip.rows.items():
            if not jpegs:
                continue
            frames = [_pixels(each) for each in jpegs]
            blank = np.full_like(frames[0], 255)
            rows.append(np.stack([*frames, *[blank] * (len(strip.at) - len(frames))]))
            first = (
                ""
                if policy != next(iter(strip.rows))
                else f"{fill(strip.prompt, LETTERS * len(strip.at))}\nseed {strip.seed}\n"
            )
            titles.append(first + policy)
    filmstrips(titles, rows, [number * chunk_seconds for number in strips[0].at], path)


def _pixels(picture: bytes) -> np.ndarray:
    decoded: Any = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _one(strip: Filmstrip) -> str:
    head = "".join(f'<th scope="col">chunk {number}</th>' for number in strip.at)
    body = "".join(
        f'<tr><th scope="row">{escape(policy)}</th>'
        + "".join(_frame(f"{policy}, chunk {number}", frames[i : i + 1]) for i, number in enumerate(strip.at))
        + "</tr>"
        for policy, frames in strip.rows.items()
    )
    name = f"{escape(strip.prompt)} <small>seed {strip.seed} · the last frame of a chunk</small>"
    return (
        f'<figure class="fkv-panel"><figcaption>{name}</figcaption>'
        f'<div class="fkv-scroll" role="region" tabindex="0" aria-label="Frames, seed {strip.seed}">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def _frame(alt: str, jpegs: Sequence[bytes]) -> str:
    if not jpegs:
        return "<td></td>"
    return f'<td><img alt="{escape(alt)}" src="data:image/jpeg;base64,{b64encode(jpegs[0]).decode()}"></td>'
