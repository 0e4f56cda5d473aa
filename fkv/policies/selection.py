"""Choosing pages by queries: digests of their keys, scores against them, and a choice on two levels.

A digest is a pair of vectors per page and head: the largest and the smallest value of its keys in each dimension, or
the mean key twice. Digests of pages join into one of their frame.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Bound = Literal["linear", "exact", "mean"]


def digests(keys: Tensor, bound: Bound) -> Tensor:
    """Digests of pages.

    Args:
        keys: [batch, heads, pages, page_tokens, head_dim].
        bound: `mean` digests are mean keys, others the largest and the smallest value.

    Returns:
        float32 [2, batch, heads, pages, head_dim].
    """
    keys = keys.float()
    if bound == "mean":
        return keys.mean(3).expand(2, *keys.mean(3).shape)
    return torch.stack([keys.amax(3), keys.amin(3)])


def frame_digests(pages: Tensor, frame: np.ndarray, bound: Bound) -> Tensor:
    """Digests of frames, from those of the pages that are left of them.

    Args:
        pages: As `digests` returns them.
        frame: Which frame each page belongs to, int [pages], from 0 without gaps.
        bound: As for `digests`.

    Returns:
        float32 [2, batch, heads, frames, head_dim].
    """
    pages_of = [np.flatnonzero(frame == each) for each in range(frame.max() + 1)]
    longest = max(map(len, pages_of))
    # A frame with fewer pages than others lists one of its own again; means weigh each page once.
    table = torch.from_numpy(np.stack([np.resize(rows, longest) for rows in pages_of])).to(pages.device)
    largest, smallest = pages[:, :, :, table]
    if bound == "mean":
        once = [np.arange(longest) < len(rows) for rows in pages_of]
        weight = torch.from_numpy(np.stack(once)).to(pages)
        mean = (largest * weight[..., None]).sum(3) / weight.sum(1, keepdim=True)
        return mean.expand(2, *mean.shape)
    return torch.stack([largest.amax(3), smallest.amin(3)])


def scores(query: Tensor, digest: Tensor, bound: Bound, alpha: float) -> np.ndarray:
    """How much the queries of a head may ask for each page: the largest over queries, the mean over the batch.

    Args:
        query: float32 [batch, heads, queries, head_dim].
        digest: [2, batch, heads, pages, head_dim].
        bound: `linear` is q . (alpha M + (1 - alpha) m), `exact` the largest product that any key between m and M can
            have, `mean` the product with the mean key.
        alpha: Weight of the largest value in the linear form.

    Returns:
        float32 [heads, pages].
    """
    largest, smallest = digest.transpose(-1, -2)
    if bound == "exact":
        found = query.clamp_min(0) @ largest + query.clamp_max(0) @ smallest
    else:
        found = query @ torch.lerp(smallest, largest, alpha)
    return found.amax(2).mean(0).cpu().numpy()


def share_of(ratio: float, count: int) -> int:
    """A share of a count, rounded up."""
    return math.ceil(round(ratio * count, 6))


def two_levels(
    frame_scores: np.ndarray, page_scores: np.ndarray, frame: np.ndarray, frame_ratio: float, page_ratio: float
) -> np.ndarray:
    """Choose frames, then pages of these frames, for each head.

    Args:
        frame_scores: [heads, frames].
        page_scores: [heads, pages].
        frame: Which frame each page belongs to, int [pages].
        frame_ratio: Share of all frames that are chosen; the first and the last come on top.
        page_ratio: Share of all pages that are chosen among those of the chosen frames; all of the first and of the
            last frame come on top.

    Returns:
        The chosen pages of each head, ascending, int [heads, n].
    """
    heads, frames = frame_scores.shape
    ends = (frame == 0) | (frame == frames - 1)
    middle = np.arange(1, frames - 1)
    best = np.argsort(-frame_scores[:, middle], axis=1, kind="stable")[:, : share_of(frame_ratio, frames)]
    open_frames = np.zeros((heads, frames), bool)
    np.put_along_axis(open_frames, middle[best], True, axis=1)
    candidates = open_frames[:, frame] & ~ends
    count = min(share_of(page_ratio, len(frame)), int(candidates.sum(1).min()))
    ranked = np.argsort(-np.where(candidates, page_scores, -np.inf), axis=1, kind="stable")[:, :count]
    always = np.broadcast_to(np.flatnonzero(ends), (heads, int(ends.sum())))
    return np.sort(np.concatenate([ranked, always], 1), axis=1)
