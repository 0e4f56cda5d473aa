"""Read and write tokens of a page buffer by index.

fp8 moves as bytes, because PyTorch does not index that type on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _as_bytes(x: Tensor) -> Tensor:
    """View fp8 as bytes; other types stay as they are."""
    return x.view(torch.uint8) if x.element_size() == 1 else x


def put(buffer: Tensor, index: Tensor, x: Tensor) -> None:
    """Write tokens to a buffer, converted to its type.

    Args:
        buffer: [batch, heads, capacity, head_dim].
        index: Where in `buffer` each token goes, int64 [tokens].
        x: [batch, heads, tokens, head_dim]. For an fp8 buffer, values beyond its range are clamped; older versions of
            PyTorch would convert them to NaN.
    """
    if x.dtype != buffer.dtype and buffer.element_size() == 1:
        largest = torch.finfo(buffer.dtype).max
        x = x.clamp(-largest, largest)
    _as_bytes(buffer).index_copy_(2, index, _as_bytes(x.to(buffer.dtype)))


def join(buffers: Sequence[Tensor]) -> Tensor:
    """Copy tokens of several buffers, [batch, heads, tokens, head_dim] each, into one; a single one is not copied."""
    return buffers[0] if len(buffers) == 1 else torch.cat([_as_bytes(x) for x in buffers], 2).view(buffers[0].dtype)


def take(buffer: Tensor, index: Tensor) -> Tensor:
    """Copy tokens out of a buffer.

    Args:
        buffer: [batch, heads, capacity, head_dim].
        index: int64 [tokens].

    Returns:
        [batch, heads, tokens, head_dim] of the buffer's type.
    """
    return _as_bytes(buffer).index_select(2, index).view(buffer.dtype)
