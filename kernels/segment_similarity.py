"""How similar each segment of a frame is to the same segment one frame later."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import jit, tl, triton, with_triton


@jit
def _kernel(
    keys,
    out,
    segment_tokens,
    batch_stride,
    head_stride,
    frame_stride,
    token_stride,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # One program per part of a segment (BLOCK_T tokens), frame and batch entry; `_triton` adds the parts up.
    part = tl.program_id(0) % PARTS
    segment = tl.program_id(0) // PARTS
    frame = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    t = part * BLOCK_T + tl.arange(0, BLOCK_T)
    dim = tl.arange(0, BLOCK_D)
    inside = (t < segment_tokens)[:, None] & (dim < SIZE)[None, :]
    place = keys + batch * batch_stride + frame.to(tl.int64) * frame_stride
    place += (segment * segment_tokens + t)[:, None] * token_stride + dim[None, :]
    # A token's vector is all of its heads: dot product, and squared norms here and one frame later.
    dot = tl.zeros((BLOCK_T,), tl.float32)
    here = tl.zeros((BLOCK_T,), tl.float32)
    later = tl.zeros((BLOCK_T,), tl.float32)
    for head in range(HEADS):
        a = tl.load(place + head * head_stride, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(place + head * head_stride + frame_stride, mask=inside, other=0.0).to(tl.float32)
        dot += tl.sum(a * b, 1)
        here += tl.sum(a * a, 1)
        later += tl.sum(b * b, 1)
    cosine = dot / (tl.maximum(tl.sqrt(here), 1e-8) * tl.maximum(tl.sqrt(later), 1e-8))
    row = (batch * tl.num_programs(1) + frame) * tl.num_programs(0) + tl.program_id(0)
    tl.store(out + row, tl.sum(tl.where(t < segment_tokens, cosine, 0.0)))


def _triton(keys: Tensor, segments: int) -> Tensor:
    keys = keys if keys.stride(4) == 1 else keys.contiguous()
    batch, heads, frames, tokens, size = keys.shape
    segment_tokens = tokens // segments
    block = 16
    parts = triton.cdiv(segment_tokens, block)
    sums = keys.new_empty(batch, frames - 1, segments, parts, dtype=torch.float32)
    _kernel[segments * parts, frames - 1, batch](
        keys,
        sums,
        segment_tokens,
        *keys.stride()[:4],
        HEADS=heads,
        SIZE=size,
        PARTS=parts,
        BLOCK_T=block,
        BLOCK_D=triton.next_power_of_2(size),
    )
    return sums.sum((0, 3)) / (batch * segment_tokens)


@with_triton(_triton)
def segment_similarity(keys: Tensor, segments: int) -> Tensor:
    """Compute the mean cosine similarity of neighbouring frames per segment; low means that something moved.

    Args:
        keys: After RoPE, [batch, heads, frames, tokens, head_dim]. A token's vector is that of all heads.
        segments: Segments of a frame; must divide the tokens.

    Returns:
        float32 [frames - 1, segments] on the device of `keys`, averaged over each segment's tokens and over the batch.
    """
    vectors = F.normalize(keys.float().movedim(1, 3).flatten(3), dim=-1, eps=1e-8)
    cosine = (vectors[:, :-1] * vectors[:, 1:]).sum(-1)
    return cosine.unflatten(2, (segments, -1)).mean((0, 3))
