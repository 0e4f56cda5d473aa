"""What a pass saw of each page of a head group, to be found again by frame and segment when pages are evicted."""

from __future__ import annotations

import numpy as np

from fkv.pages import Pages

from .base import ChunkState

NOTE = "page scores"


def note(state: ChunkState, group: str, pages: Pages, score: np.ndarray) -> None:
    """Remember scores of pages of a group, float [pages]; of pages that a layer before has scored, the larger."""
    before = found(state, group, pages)
    noted = state.cache.notes.setdefault(NOTE, {})
    noted[group] = state.chunk, _numbers(pages, state), np.fmax(score, before)


def found(state: ChunkState, group: str, pages: Pages) -> np.ndarray:
    """The scores of pages in this chunk, NaN where there are none, float [pages]."""
    chunk, numbers, score = state.cache.notes.get(NOTE, {}).get(group, (None, (), ()))
    known = dict(zip(numbers, score, strict=True)) if chunk == state.chunk else {}
    return np.array([known.get(number, np.nan) for number in _numbers(pages, state)])


def _numbers(pages: Pages, state: ChunkState) -> list[tuple[int, int, int]]:
    segments = state.cache.segments
    return [(segments, *page) for page in zip(pages.frame.tolist(), pages.segment.tolist(), strict=True)]
