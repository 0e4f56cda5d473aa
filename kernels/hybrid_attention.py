"""Attention of a layer whose head groups have different keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arithmetic import product, rounded
from .attention import attention, token_major
from .dispatch import INTERPRETED, jit, tl, triton, with_triton
from .head_table import GROUP_VALUE, KEYS, KEYS_STRIDE, ROW, VALUES, VALUES_STRIDE, head_table
from .pages import join
from .threads import by_all_threads

LOG2_E = math.log2(math.e)


@jit
def _attend(
    q,
    keys,
    values,
    acc,
    top,
    total,
    first,
    last,
    scale,
    SIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Online softmax over key tokens first..last: `top` is each query's highest score so far, `total` the sum of its
    # weights and `acc` the weighted sum of values, both relative to `top`; when `top` rises, `fade` rescales them.
    dim = tl.arange(0, BLOCK_D)
    n = tl.arange(0, BLOCK_N)
    for start in range(first, last, BLOCK_N):
        place = (start + n)[:, None] * SIZE + dim[None, :]
        inside = (start + n < last)[:, None] & (dim < SIZE)[None, :]
        k_place = keys + place
        v_place = values + place
        if ALIGNED:  # addresses come from the table, so the compiler cannot see that it may load 16 bytes at once
            k_place = tl.multiple_of(k_place, (16, 16))
            v_place = tl.multiple_of(v_place, (16, 16))
        k = tl.load(k_place, mask=inside, other=0.0) if TAIL or SIZE != BLOCK_D else tl.load(k_place)
        v = tl.load(v_place, mask=inside, other=0.0) if TAIL or SIZE != BLOCK_D else tl.load(v_place)
        k = k.to(q.dtype)
        v = v.to(q.dtype)
        scores = product(q, tl.trans(k), tl.zeros((BLOCK_M, BLOCK_N), tl.float32), "ieee") * scale
        if TAIL:
            scores = tl.where((start + n < last)[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weight = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(weight, 1)
        acc = product(rounded(weight, v.dtype), v, acc * fade[:, None], "ieee")
        top = higher
    return acc, top, total


@jit
def _kernel(
    query,
    table,
    out,
    like,
    tokens,
    q_batch,
    q_head,
    q_token,
    o_batch,
    o_head,
    o_token,
    scale,
    HEADS: tl.constexpr,
    LINES: tl.constexpr,
    SIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RUNS: tl.constexpr,
):
    # One program per block of queries, head and batch entry; `scale` includes log2(e), for exp2 in place of exp. The
    # table has as many lines for each run as there are heads, or heads of all batch entries where these differ.
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    head = tl.program_id(1) % HEADS
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    inside = (m < tokens)[:, None] & (dim < SIZE)[None, :]
    q = tl.load(query + batch * q_batch + head * q_head + m[:, None] * q_token + dim[None, :], mask=inside, other=0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    for run in tl.static_range(RUNS):
        # The table has plain addresses; `like` is a buffer whose pointer type they take.
        entry = table + (run * LINES + tl.program_id(1) % LINES) * ROW
        within = (tl.program_id(1) // LINES).to(tl.int64)
        keys = tl.load(entry + KEYS).to(like.dtype) + within * tl.load(entry + KEYS_STRIDE)
        values = tl.load(entry + VALUES).to(like.dtype) + within * tl.load(entry + VALUES_STRIDE)
        key_tokens = tl.load(entry + GROUP_VALUE).to(tl.int32)
        # Whole blocks of keys without masks, then the rest with them.
        whole = key_tokens // BLOCK_N * BLOCK_N
        acc, top, total = _attend(
            q, keys, values, acc, top, total, 0, whole, scale, SIZE, ALIGNED, False, BLOCK_M, BLOCK_N, BLOCK_D
        )
        acc, top, total = _attend(
            q, keys, values, acc, top, total, whole, key_tokens, scale, SIZE, ALIGNED, True, BLOCK_M, BLOCK_N, BLOCK_D
        )
    # A group without keys gives 0.
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out + batch * o_batch + head * o_head + m[:, None] * o_token + dim[None, :],
        rounded(acc, out.dtype.element_ty),
        mask=inside,
    )


def _blocks(query: Tensor) -> dict[str, int]:
    """Return block sizes that fit the shared memory of the GPU: larger ones on Hopper."""
    if INTERPRETED or query.element_size() > 2 or query.shape[3] > 128:
        return {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}
    if torch.cuda.get_device_capability(query.device)[0] >= 9:
        return {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}
    return {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}


Buffers = tuple[Tensor, Tensor]
"""Keys and values of a head group, [batch, heads of the group, tokens, head_dim] each, with contiguous tokens."""


def _triton(query: Tensor, groups: Sequence[Buffers]) -> Tensor:
    return _triton_runs(query, [[group] for group in groups])


def _triton_runs(query: Tensor, groups: Sequence[Sequence[Buffers]]) -> Tensor:
    return _launch(query, groups, query.shape[1])


def _triton_rows(query: Tensor, rows: Sequence[Sequence[Sequence[Buffers]]]) -> Tensor:
    entries = [
        [[(keys[entry : entry + 1], values[entry : entry + 1]) for keys, values in runs] for runs in groups]
        for groups in rows
        for entry in range(len(groups[0][0][0]))
    ]
    return _launch(query, [runs for groups in entries for runs in groups], query.shape[0] * query.shape[1])


def _launch(query: Tensor, groups: Sequence[Sequence[Buffers]], lines: int) -> Tensor:
    """Attend where each of `groups` is a run of lines of the table, `lines` in all."""
    query = query if query.stride(3) == 1 else query.contiguous()
    batch, heads, tokens, size = query.shape
    out = token_major(query)
    blocks = _blocks(query)
    # All groups of the first run, then all of the second, ...; where a group has fewer runs, the others are empty.
    runs = max(map(len, groups))
    padded = [(*group, *[tuple(x[:, :, :0] for x in group[0])] * (runs - len(group))) for group in groups]
    table = head_table([(keys, values, keys.shape[2]) for run in zip(*padded, strict=True) for keys, values in run])
    _kernel[triton.cdiv(tokens, blocks["BLOCK_M"]), batch * heads](
        query,
        table,
        out,
        groups[0][0][0],
        tokens,
        *query.stride()[:3],
        *out.stride()[:3],
        size**-0.5 * LOG2_E,
        HEADS=heads,
        LINES=lines,
        SIZE=size,
        ALIGNED=size * groups[0][0][0].element_size() % 16 == 0,
        BLOCK_D=max(triton.next_power_of_2(size), 16),
        RUNS=runs,
        **blocks,
    )
    return out


@with_triton(_triton)
@by_all_threads
def hybrid_attention(query: Tensor, groups: Sequence[Buffers]) -> Tensor:
    """Compute attention of all head groups of a layer, each over its keys; one launch in Triton.

    Args:
        query: [batch, heads, tokens, head_dim], heads in the order of the groups.
        groups: Per head group keys and values, [batch, heads of the group, key tokens of the group, head_dim], of the
            type of `query` or fp8, with contiguous tokens. A group may have no head, or no token: the result is then 0.

    Returns:
        [batch, heads, tokens, head_dim], stored token by token: `.transpose(1, 2).flatten(2)` of it copies nothing.
    """
    out = token_major(query)
    sizes = [keys.shape[1] for keys, _ in groups]
    for (keys, values), group_query, group_out in zip(groups, query.split(sizes, 1), out.split(sizes, 1), strict=True):
        if keys.numel():
            attention(group_query, keys, values, group_out)
        else:
            group_out.zero_()
    return out


@with_triton(_triton_runs)
def attention_over_runs(query: Tensor, groups: Sequence[Sequence[Buffers]]) -> Tensor:
    """Compute `hybrid_attention` where a group's keys lie in several places; one launch, without a copy, in Triton.

    Args:
        query: [batch, heads, tokens, head_dim], heads in the order of the groups.
        groups: Per head group at least one run: keys and values as in `hybrid_attention`.

    Returns:
        As `hybrid_attention` over the runs of each group one behind the other.
    """
    sides = (zip(*runs, strict=True) for runs in groups)
    return hybrid_attention.twin(query, [(join(keys), join(values)) for keys, values in sides])


@with_triton(_triton_rows)
def attention_of_rows(query: Tensor, rows: Sequence[Sequence[Sequence[Buffers]]]) -> Tensor:
    """Compute `attention_over_runs` of several streams, each over keys of its own; one launch in Triton.

    Args:
        query: [batch of all streams, heads, tokens, head_dim], the batch entries of the first stream before those of
            the second.
        rows: Per stream its head groups, as `attention_over_runs` takes them, with keys and values of one type.

    Returns:
        As `attention_over_runs` of each stream, one behind the other.
    """
    out = token_major(query)
    batches = [len(groups[0][0][0]) for groups in rows]
    for own_query, own_out, groups in zip(query.split(batches), out.split(batches), rows, strict=True):
        own_out.copy_(attention_over_runs.twin(own_query, groups))
    return out
