"""What the policies of a comparison painted: one strip per prompt and seed, one row per policy, pictures of the same moments."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from fkv.comparison import moments
from fkv.stream import Chunk

from .protocol import jpeg

TALL = 120
"""How many pixels high a picture is at most."""


@dataclass(frozen=True)
class Filmstrip:
    """rows : policy -> JPEGs, the last frame of each chunk of `at`, as many as there are so far. at : numbers of chunks, from 1."""

    prompt: str
    seed: int
    at: tuple[int, ...]
    rows: Mapping[str, tuple[bytes, ...]]


def filmstrip(prompt: str, seed: int, made: Mapping[str, Sequence[Chunk]], chunks: int) -> Filmstrip:
    """The strip of streams that are to have so many chunks, each policy with those that it has made; without a decoder no pictures."""
    at = moments(chunks)
    shown = {policy: [own[n - 1].video for n in at if n <= len(own)] for policy, own in made.items()}
    rows = {
        policy: tuple(_small(video[-1]) for video in videos if video is not None) for policy, videos in shown.items()
    }
    return Filmstrip(prompt, seed, at, rows)


def _small(frame: np.ndarray) -> bytes:
    height, width = frame.shape[:2]
    scale = min(1, TALL / height)
    return jpeg(cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA))


def html(strips: Sequence[Filmstrip]) -> str:
    """The strips that have a picture, as HTML; a moment that is still to come is an empty frame."""
    return "".join(_one(strip) for strip in strips if any(strip.rows.values()))


def _one(strip: Filmstrip) -> str:
    head = "".join(f'<th scope="col">chunk {number}</th>' for number in strip.at)
    body = "".join(
        f'<tr><th scope="row">{escape(policy)}</th>'
        + "".join(_picture(f"{policy}, chunk {number}", pictures[i : i + 1]) for i, number in enumerate(strip.at))
        + "</tr>"
        for policy, pictures in strip.rows.items()
    )
    name = f"{escape(strip.prompt)} <small>seed {strip.seed} · the last frame of a chunk</small>"
    return (
        f'<figure class="fkv-panel"><figcaption>{name}</figcaption>'
        f'<div class="fkv-scroll" role="region" tabindex="0" aria-label="Pictures, seed {strip.seed}">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def _picture(words: str, found: Sequence[bytes]) -> str:
    if not found:
        return "<td></td>"
    return f'<td><img alt="{escape(words)}" src="data:image/jpeg;base64,{b64encode(found[0]).decode()}"></td>'
