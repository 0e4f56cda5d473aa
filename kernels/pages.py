"""Tokens of a page buffer by number. Stored in 8 bits they move as bytes, since PyTorch has no indexing of that type on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def _plain(x: Tensor) -> Tensor:
    return x.view(torch.uint8) if x.element_size() == 1 else x


def put(buffer: Tensor, index: Tensor, x: Tensor) -> None:
    """Store x [batch, heads, tokens, head_dim] in a buffer [batch, heads, capacity, head_dim], in its type, as its tokens `index`,
    int64 [tokens]. In 8 bits larger numbers are cut to the largest one; of itself older PyTorch makes NaN of them."""
    if x.dtype != buffer.dtype and buffer.element_size() == 1:
        largest = torch.finfo(buffer.dtype).max
        x = x.clamp(-largest, largest)
    _plain(buffer).index_copy_(2, index, _plain(x.to(buffer.dtype)))


def take(buffer: Tensor, index: Tensor) -> Tensor:
    """A copy of tokens `index`, int64 [tokens], of a buffer [batch, heads, capacity, head_dim]."""
    return _plain(buffer).index_select(2, index).view(buffer.dtype)
