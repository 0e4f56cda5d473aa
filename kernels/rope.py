"""Rotary position embedding of Wan: time, row and column each rotate their share of a head's dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Return how many dimensions of a head rotate with time, row and column."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def _axis_freqs_cis(positions: Tensor, dims: int) -> Tensor:
    """Return the rotations of one axis, complex64 [positions, dims / 2]."""
    speed = THETA ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angles = positions.double()[:, None] * speed
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rope_freqs_cis(
    frames: Sequence[int], rows: int, cols: int, head_dim: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the RoPE rotations of the tokens of some latent frames.

    Computed in float64 for any position, so a stream may be of any length. Equal to diffusers' `WanRotaryPosEmbed` at
    the positions that it covers.

    Args:
        frames: Position in time of each latent frame.
        rows: Rows of tokens in a frame.
        cols: Columns of tokens in a frame.
        head_dim: Dimensions of a head.
        device: Where the result is stored.

    Returns:
        complex64 [tokens, head_dim / 2]; tokens in order frame, row, column.
    """
    positions = (torch.as_tensor(list(frames)), torch.arange(rows), torch.arange(cols))
    time, row, col = (
        _axis_freqs_cis(position, dims).to(device)
        for position, dims in zip(positions, axis_dims(head_dim), strict=True)
    )
    shape = (len(frames), rows, cols, -1)
    axes = [time[:, None, None].expand(shape), row[:, None].expand(shape), col.expand(shape)]
    return torch.cat(axes, 3).flatten(0, 2)


def apply_rope(x: Tensor, freqs_cis: Tensor) -> Tensor:
    """Rotate queries or keys.

    Args:
        x: [batch, tokens, heads, head_dim].
        freqs_cis: complex64 [tokens, head_dim / 2], from `rope_freqs_cis`.

    Returns:
        The shape and type of `x`.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * freqs_cis[:, None]).flatten(-2).to(x.dtype)
