"""From fused projections to attention: RMSNorm and RoPE of queries and keys; keys and values go to their pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .arithmetic import rounded
from .dispatch import jit, tl, triton, with_triton
from .head_table import GROUP_VALUE, KEYS, KEYS_STRIDE, ROW, VALUES, VALUES_STRIDE, head_table
from .pages import put, take


@jit
def _norm_rope(x, weight, cos, sin, eps, WIDTH: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr):
    # RMSNorm over all heads of a token, then RoPE of neighbouring pairs of dimensions.
    x = x * tl.rsqrt(tl.sum(x * x) / WIDTH + eps) * weight
    even, odd = tl.split(tl.reshape(x, (BLOCK_H, BLOCK_D // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (BLOCK_H, BLOCK_D))


@jit
def _kernel(
    qkv,
    q_norm_weight,
    k_norm_weight,
    freqs_cis,
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
    # One program per token and batch entry, over all its heads: the norm needs all of them.
    token = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    head = tl.arange(0, BLOCK_H)
    dim = tl.arange(0, BLOCK_D)
    is_head = head < HEADS
    inside = is_head[:, None] & (dim < SIZE)[None, :]
    place = head[:, None] * SIZE + dim[None, :]
    cis = tl.load(freqs_cis + token * SIZE + dim, mask=dim < SIZE, other=0.0)
    cos, sin = tl.split(tl.reshape(cis, (BLOCK_D // 2, 2)))
    row = qkv + batch * batch_stride + token.to(tl.int64) * token_stride + place

    q = tl.load(row, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(q_norm_weight + place, mask=inside, other=0.0).to(tl.float32)
    q = _norm_rope(q, weight, cos, sin, eps, HEADS * SIZE, BLOCK_H, BLOCK_D)
    target = ((batch * HEADS + head) * tokens + token) * SIZE
    tl.store(out + target[:, None] + dim[None, :], rounded(q, out.dtype.element_ty), mask=inside)

    k = tl.load(row + HEADS * SIZE, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(k_norm_weight + place, mask=inside, other=0.0).to(tl.float32)
    k = _norm_rope(k, weight, cos, sin, eps, HEADS * SIZE, BLOCK_H, BLOCK_D)
    v = tl.load(row + 2 * HEADS * SIZE, mask=inside, other=0.0)

    # The table has plain addresses; `like` is a buffer whose pointer type they take. The group's value is the address
    # of its index, which says where in the buffers each token goes.
    entry = table + head * ROW
    keys = tl.load(entry + KEYS, mask=is_head, other=0).to(like.dtype)
    values = tl.load(entry + VALUES, mask=is_head, other=0).to(like.dtype)
    index = tl.load(entry + GROUP_VALUE, mask=is_head, other=0).to(table.dtype)
    slot = tl.load(index + token, mask=is_head, other=0) * SIZE
    keys += batch * tl.load(entry + KEYS_STRIDE, mask=is_head, other=0) + slot
    values += batch * tl.load(entry + VALUES_STRIDE, mask=is_head, other=0) + slot
    keys = keys[:, None] + dim[None, :]
    values = values[:, None] + dim[None, :]
    if ALIGNED:  # as in hybrid_attention
        keys = tl.multiple_of(keys, (16, 16))
        values = tl.multiple_of(values, (16, 16))
    tl.store(keys, rounded(k, like.dtype.element_ty), mask=inside)
    tl.store(values, rounded(v.to(tl.float32), like.dtype.element_ty), mask=inside)


def _triton(
    qkv: Tensor,
    qk_norm_weight: Tensor,
    eps: float,
    freqs_cis: Tensor,
    groups: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> Tensor:
    batch, tokens, width = qkv.shape
    size = 2 * freqs_cis.shape[1]
    heads = width // 3 // size
    qkv = qkv if qkv.stride(2) == 1 else qkv.contiguous()
    out = qkv.new_empty(batch, heads, tokens, size)
    table = head_table([(keys, values, index.data_ptr()) for keys, values, index in groups])
    _kernel[tokens, batch](
        qkv,
        *qk_norm_weight,
        torch.view_as_real(freqs_cis),
        table,
        out,
        groups[0][0],
        tokens,
        qkv.stride(0),
        qkv.stride(1),
        eps,
        HEADS=heads,
        SIZE=size,
        ALIGNED=size * groups[0][0].element_size() % 16 == 0,
        BLOCK_H=triton.next_power_of_2(heads),
        BLOCK_D=max(triton.next_power_of_2(size), 2),
        num_warps=8,
    )
    return out


def _written(
    qkv: Tensor,
    qk_norm_weight: Tensor,
    eps: float,
    freqs_cis: Tensor,
    groups: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> list[Tensor]:
    return [take(buffer, index) for keys, values, index in groups for buffer in (keys, values)]


@with_triton(_triton, _written)
def norm_rope_store(
    qkv: Tensor,
    qk_norm_weight: Tensor,
    eps: float,
    freqs_cis: Tensor,
    groups: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> Tensor:
    """Apply RMSNorm over all heads and RoPE to queries and keys, and write keys and values to their pages.

    One pass over memory in Triton.

    Args:
        qkv: [batch, tokens, 3 * heads * head_dim]: queries, keys, values; heads in the order of the groups.
        qk_norm_weight: Weights of the norms of queries and keys, [2, heads * head_dim].
        eps: Of the norms.
        freqs_cis: complex64 [tokens, head_dim / 2], from `rope_freqs_cis`.
        groups: Per head group the buffers of keys and values, [batch, heads of the group, capacity, head_dim], of the
            type of `qkv` or fp8, and where in them each token goes, int64 [tokens]. A group may have no head.

    Returns:
        The queries, [batch, heads, tokens, head_dim].
    """
    batch, tokens, _ = qkv.shape
    width = qk_norm_weight.shape[1]
    size = 2 * freqs_cis.shape[1]
    both = qkv[:, :, : 2 * width].float().view(batch, tokens, 2, width)
    both = F.rms_norm(both, (width,), eps=eps).mul_(qk_norm_weight)
    both = torch.view_as_complex(both.view(batch, tokens, -1, size // 2, 2)).mul_(freqs_cis[:, None])
    q, k = torch.view_as_real(both).flatten(3).to(qkv.dtype).chunk(2, 2)
    v = qkv[:, :, 2 * width :].unflatten(2, (-1, size))
    start = 0
    for keys, values, index in groups:
        stop = start + keys.shape[1]
        put(keys, index, k[:, :, start:stop].transpose(1, 2))
        put(values, index, v[:, :, start:stop].transpose(1, 2))
        start = stop
    return q.transpose(1, 2)
