"""Attention mass per key frame, without ever storing all queries x keys scores."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .arithmetic import product
from .dispatch import jit, tl, triton, with_triton
from .hybrid_attention import LOG2_E
from .onednn import float32_by_onednn, multiplies_float32


@jit
def _kernel(
    query,
    keys,
    page_frame,
    out,
    queries,
    tokens,
    page_tokens,
    frames,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    scale,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    # One program per block of queries, head and batch entry; `scale` includes log2(e), for exp2 in place of exp.
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    head = tl.program_id(1) % HEADS
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    frame = tl.arange(0, BLOCK_F)
    inside = (m < queries)[:, None] & (dim < SIZE)[None, :]
    q = tl.load(query + batch * q_batch + head * q_head + m[:, None] * q_row + dim[None, :], mask=inside, other=0.0)
    base = keys + batch * k_batch + head.to(tl.int64) * k_head
    # Online softmax as in hybrid_attention, with frame membership in the place of the values.
    mass = tl.zeros((BLOCK_M, BLOCK_F), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    for start in range(0, tokens, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k_inside = (n < tokens)[:, None] & (dim < SIZE)[None, :]
        k = tl.load(base + n[:, None] * k_row + dim[None, :], mask=k_inside, other=0.0)
        k = k.to(q.dtype)
        key_frame = tl.load(page_frame + n // page_tokens, mask=n < tokens, other=-1)
        member = (key_frame[:, None] == frame[None, :]).to(tl.float32)
        scores = product(q, tl.trans(k), tl.zeros((BLOCK_M, BLOCK_N), tl.float32), "ieee") * scale
        scores = tl.where((n < tokens)[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weight = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(weight, 1)
        mass = product(weight, member, mass * fade[:, None], PRECISION)
        top = higher
    mass = mass / total[:, None]
    row = (batch * HEADS + head) * queries + m
    out_inside = (m < queries)[:, None] & (frame < frames)[None, :]
    tl.store(out + row[:, None] * frames + frame[None, :], mass, mask=out_inside)


def _triton(query: Tensor, keys: Tensor, page_frame: Tensor, frames: int, block: int = 256) -> Tensor:
    query, keys = (x if x.stride(3) == 1 else x.contiguous() for x in (query, keys))
    batch, heads, queries, size = query.shape
    out = query.new_empty(batch, heads, queries, frames, dtype=torch.float32)
    if out.numel():
        _kernel[triton.cdiv(queries, 32), batch * heads](
            query,
            keys,
            page_frame,
            out,
            queries,
            keys.shape[2],
            keys.shape[2] // len(page_frame),
            frames,
            *query.stride()[:3],
            *keys.stride()[:3],
            size**-0.5 * LOG2_E,
            HEADS=heads,
            SIZE=size,
            PRECISION="ieee" if query.element_size() > 2 else "tf32",
            BLOCK_M=32,
            BLOCK_N=32,
            BLOCK_D=max(triton.next_power_of_2(size), 16),
            BLOCK_F=max(triton.next_power_of_2(frames), 16),
        )
    return out


@with_triton(_triton)
def frame_mass(query: Tensor, keys: Tensor, page_frame: Tensor, frames: int, block: int = 256) -> Tensor:
    """Compute the softmax mass that each query puts on each key frame.

    Args:
        query: [batch, heads, queries, head_dim].
        keys: [batch, heads, tokens, head_dim], at least one token, page after page; all pages are equally long.
        page_frame: The frame of each page, int64 [pages], from 0 to `frames` - 1.
        frames: How many frames there are.
        block: Queries computed at a time in the PyTorch twin.

    Returns:
        float32 [batch, heads, queries, frames]; each query's masses sum to 1.
    """
    keys = keys.float().transpose(-1, -2)
    member = one_hot(page_frame, frames).float()
    scale = query.shape[-1] ** -0.5
    pages = (len(page_frame), -1)
    sums = []
    with float32_by_onednn() if query.is_cpu and multiplies_float32() else nullcontext():
        for part in query.split(block, 2):
            weights = (part.float() * scale) @ keys
            sums.append(torch.softmax(weights, -1, out=weights).unflatten(-1, pages).sum(-1))
    return torch.cat(sums, 2) @ member
