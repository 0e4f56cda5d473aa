"""Rotary position embedding of Wan: time, row and column each turn their own share of a head's dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many dimensions of a head turn with time, row and column."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def _turns(positions: Tensor, dims: int) -> Tensor:
    speed = THETA ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angles = positions.double()[:, None] * speed
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rope_freqs_cis(
    frames: Sequence[int], rows: int, cols: int, head_dim: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Turns for the tokens of latent frames at absolute indices `frames`, in order frame, row, column.

    Computed in float64 for any index, so there is no longest stream. Returns complex64 [tokens, head_dim / 2].
    """
    places = torch.as_tensor(list(frames)), torch.arange(rows), torch.arange(cols)
    time, row, col = (_turns(place, dims).to(device) for place, dims in zip(places, axis_dims(head_dim)))
    shape = (len(frames), rows, cols, -1)
    return torch.cat([time[:, None, None].expand(shape), row[:, None].expand(shape), col.expand(shape)], 3).flatten(
        0, 2
    )


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Turn queries or keys: x [batch, tokens, heads, head_dim], table [tokens, head_dim / 2]. Same shape and dtype as x."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None]).flatten(-2).to(x.dtype)
