"""From the fused projections to attention's inputs: RMSNorm and RoPE of queries and keys, keys and values to their pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .arithmetic import rounded
from .dispatch import jit, tl, triton, with_triton
from .head_table import head_table
from .pages import put, take


@jit
def _norm_rope(x, gain, cos, sin, eps, COUNT: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr):
    x = x * tl.rsqrt(tl.sum(x * x) / COUNT + eps) * gain
    even, odd = tl.split(tl.reshape(x, (BLOCK_H, BLOCK_D // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (BLOCK_H, BLOCK_D))


@jit
def _kernel(
    qkv,
    gain_q,
    gain_k,
    turns,
    table,
    out,
    like,
    tokens,
    batch_stride,
    token_stride,
    eps,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    head, dim = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D)
    held = head < HEADS
    inside = held[:, None] & (dim < SIZE)[None, :]
    place = head[:, None] * SIZE + dim[None, :]
    turn = tl.load(turns + token * SIZE + dim, mask=dim < SIZE, other=0.0)
    cos, sin = tl.split(tl.reshape(turn, (BLOCK_D // 2, 2)))
    row = qkv + batch * batch_stride + token.to(tl.int64) * token_stride + place

    q = tl.load(row, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(gain_q + place, mask=inside, other=0.0).to(tl.float32)
    q = _norm_rope(q, gain, cos, sin, eps, HEADS * SIZE, BLOCK_H, BLOCK_D)
    target = ((batch * HEADS + head) * tokens + token) * SIZE
    tl.store(out + target[:, None] + dim[None, :], rounded(q, out.dtype.element_ty), mask=inside)

    k = tl.load(row + HEADS * SIZE, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(gain_k + place, mask=inside, other=0.0).to(tl.float32)
    k = _norm_rope(k, gain, cos, sin, eps, HEADS * SIZE, BLOCK_H, BLOCK_D)
    v = tl.load(row + 2 * HEADS * SIZE, mask=inside, other=0.0)

    entry = table + head * 5
    keys = tl.load(entry, mask=held, other=0).to(like.dtype)
    values = tl.load(entry + 1, mask=held, other=0).to(like.dtype)
    index = tl.load(entry + 4, mask=held, other=0).to(table.dtype)
    slot = tl.load(index + token, mask=held, other=0) * SIZE
    keys += batch * tl.load(entry + 2, mask=held, other=0) + slot
    values += batch * tl.load(entry + 3, mask=held, other=0) + slot
    keys, values = keys[:, None] + dim[None, :], values[:, None] + dim[None, :]
    if ALIGNED:
        keys, values = tl.multiple_of(keys, (16, 16)), tl.multiple_of(values, (16, 16))
    tl.store(keys, rounded(k, like.dtype.element_ty), mask=inside)
    tl.store(values, rounded(v.to(tl.float32), like.dtype.element_ty), mask=inside)


def _triton(
    qkv: Tensor, gains: Tensor, eps: float, table: Tensor, groups: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    batch, tokens, width = qkv.shape
    size = 2 * table.shape[1]
    heads = width // 3 // size
    qkv = qkv if qkv.stride(2) == 1 else qkv.contiguous()
    out = qkv.new_empty(batch, heads, tokens, size)
    places = head_table([(keys, values, index.data_ptr()) for keys, values, index in groups])
    blocks = triton.next_power_of_2(heads), max(triton.next_power_of_2(size), 2)
    _kernel[tokens, batch](
        qkv,
        *gains,
        torch.view_as_real(table),
        places,
        out,
        groups[0][0],
        tokens,
        qkv.stride(0),
        qkv.stride(1),
        eps,
        HEADS=heads,
        SIZE=size,
        ALIGNED=size * groups[0][0].element_size() % 16 == 0,
        BLOCK_H=blocks[0],
        BLOCK_D=blocks[1],
        num_warps=8,
    )
    return out


def _written(
    qkv: Tensor, gains: Tensor, eps: float, table: Tensor, groups: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> list[Tensor]:
    return [take(buffer, index) for keys, values, index in groups for buffer in (keys, values)]


@with_triton(_triton, _written)
def norm_rope_store(
    qkv: Tensor, gains: Tensor, eps: float, table: Tensor, groups: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """RMSNorm of q and k over all heads, RoPE of both, k and v written to their pages; one pass over memory in Triton.

    qkv: [batch, tokens, 3 * heads * head_dim], queries, keys, values, heads in the groups' order. gains: of queries and of
    keys, [2, heads * head_dim]. table: complex64 [tokens, head_dim / 2], see `rope_freqs_cis`. groups: per head group the buffers of
    keys and values [batch, heads of the group, capacity, head_dim], of qkv's type or in 8 bits, and int64 [tokens], where in
    them each token goes; a group may have no head. Returns the queries, [batch, heads, tokens, head_dim].
    """
    batch, tokens, _ = qkv.shape
    width, size = gains.shape[1], 2 * table.shape[1]
    both = F.rms_norm(qkv[:, :, : 2 * width].float().view(batch, tokens, 2, width), (width,), eps=eps).mul_(gains)
    both = torch.view_as_complex(both.view(batch, tokens, -1, size // 2, 2)).mul_(table[:, None])
    q, k = torch.view_as_real(both).flatten(3).to(qkv.dtype).chunk(2, 2)
    v, start = qkv[:, :, 2 * width :].unflatten(2, (-1, size)), 0
    for keys, values, index in groups:
        stop = start + keys.shape[1]
        put(keys, index, k[:, :, start:stop].transpose(1, 2))
        put(values, index, v[:, :, start:stop].transpose(1, 2))
        start = stop
    return q.transpose(1, 2)
