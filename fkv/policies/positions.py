"""Where cached frames sit in RoPE when they are read: the arrangements that published rules share."""

from __future__ import annotations

import numpy as np

from fkv.pages import Pages, Reads

from .base import ChunkState


def pages_of(group: str, state: ChunkState) -> Pages:
    """The pages of a head group, the chunk's own included."""
    return state.cache.groups[group].pages


def slot_order(pages: Pages, index: np.ndarray) -> np.ndarray:
    """Position of each page that is read: the rank of its frame among the frames that are read, 0 for the oldest."""
    return np.searchsorted(np.unique(pages.frame[index]), pages.frame[index])


def moved(pages: Pages, frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Position of each page: `positions` for pages of `frames` (int arrays of equal length), else as stored."""
    places = dict(zip(frames.tolist(), positions.tolist(), strict=True))
    return np.array(
        [places.get(frame, stored) for frame, stored in zip(pages.frame.tolist(), pages.position.tolist(), strict=True)]
    )


def read(mask: np.ndarray, positions: np.ndarray | None = None) -> Reads:
    """Read the pages of a mask, in slot order, at these positions (of all pages), or as stored."""
    index = np.flatnonzero(mask)
    return Reads(index, None if positions is None else positions[index])


def read_frames(pages: Pages, frames: np.ndarray, positions: np.ndarray) -> Reads:
    """Read all pages of these frames, each frame at its position; a frame may come twice."""
    rows = [pages.rows_of([frame]) for frame in frames]
    return Reads(np.concatenate(rows), np.repeat(positions, [len(each) for each in rows]))
