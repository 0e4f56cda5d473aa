"""Keys at other positions in time: RoPE of pages, applied and taken back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fkv.kernels import rope_freqs_cis
from fkv.pages import Geometry, Pages


def rotated(keys: Tensor, freqs_cis: Tensor) -> Tensor:
    """Rotate keys, float32 [batch, heads, tokens, head_dim], by complex64 [tokens, head_dim / 2]."""
    pairs = torch.view_as_complex(keys.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * freqs_cis).flatten(-2)


def shifted(keys: Tensor, steps: np.ndarray, page_tokens: int) -> Tensor:
    """Move keys of pages in time.

    Args:
        keys: float32 [batch, heads, pages * page_tokens, head_dim].
        steps: By how many positions, int [pages].
        page_tokens: Tokens of a page.

    Returns:
        Keys like `keys`.
    """
    freqs_cis = rope_freqs_cis(steps.tolist(), 1, 1, keys.shape[3], keys.device)
    return rotated(keys, freqs_cis.repeat_interleave(page_tokens, 0))


def freqs_cis_of(pages: Pages, geometry: Geometry, segments: int, device: torch.device) -> Tensor:
    """RoPE of every token of pages.

    Args:
        pages: The pages, at the positions where their keys are stored.
        geometry: Sizes of the cache.
        segments: Pages per frame.
        device: Of the result.

    Returns:
        complex64 [pages * page_tokens, head_dim / 2].
    """
    whole = rope_freqs_cis(pages.position.tolist(), geometry.rows, geometry.cols, geometry.head_dim, device)
    split = whole.unflatten(0, (len(pages), segments, geometry.tokens_per_frame // segments))
    return split[torch.arange(len(pages)), torch.from_numpy(pages.segment)].flatten(0, 1)
