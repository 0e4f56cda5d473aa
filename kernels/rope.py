"""Rotary position embedding of Wan: time, row and column each turn their own share of a head's dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many dimensions of a head turn with time, row and column."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def _angles(positions: Tensor, dims: int) -> Tensor:
    speed = THETA ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    return positions.double()[:, None] * speed


def rope_table(frames: Sequence[int], rows: int, cols: int, head_dim: int) -> Tensor:
    """Turns for the tokens of latent frames at absolute indices `frames`, in order frame, row, column.

    Computed in float64 for any index, so there is no longest stream. Returns complex64 [tokens, head_dim / 2].
    """
    shape, dims = (len(frames), rows, cols), axis_dims(head_dim)
    grids = torch.meshgrid(torch.as_tensor(list(frames)), torch.arange(rows), torch.arange(cols), indexing="ij")
    angles = torch.cat([_angles(grid.reshape(-1), d) for grid, d in zip(grids, dims)], 1)
    assert angles.shape[0] == shape[0] * shape[1] * shape[2]
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Turn queries or keys: x [batch, tokens, heads, head_dim], table [tokens, head_dim / 2]. Same shape and dtype as x."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None]).flatten(-2).to(x.dtype)
