"""Attention mass per key frame, without ever holding queries x keys."""

import torch
from torch import Tensor


def frame_mass(query: Tensor, keys: Tensor, key_frame: Tensor, frames: int, block: int = 256) -> Tensor:
    """Softmax mass that each query puts on each key frame.

    query: [batch, heads, queries, head_dim]; keys: [batch, heads, tokens, head_dim]; key_frame: int64 [tokens], the
    frame that each key belongs to, in [0, frames). Returns float32 [batch, heads, queries, frames]; rows sum to 1.
    """
    out = query.new_zeros(*query.shape[:3], frames, dtype=torch.float32)
    scale = query.shape[-1] ** -0.5
    for start in range(0, query.shape[2], block):
        scores = (query[:, :, start : start + block].float() * scale) @ keys.float().transpose(-1, -2)
        out[:, :, start : start + block].index_add_(3, key_frame, scores.softmax(-1))
    return out
