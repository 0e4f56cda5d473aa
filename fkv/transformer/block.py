"""A Wan block in two halves, before and after self-attention: `pre_attention` and `post_attention`.

The arithmetic of diffusers' `WanTransformerBlock` in fewer steps. All tokens of a pass share one timestep, so its scale and
shift are gain and bias of the layer norm, and what a timestep asks of a block is computed once (`Modulation`). Hidden states
stay in float32 from block to block, which norms and gates want; branches are computed in the type of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkv.kernels import attention, linear


@dataclass(frozen=True)
class Modulation:
    """What a timestep asks of a block, float32 [dim] each: gain and bias of the norm before a branch, gate behind it."""

    gain: Tensor
    bias: Tensor
    gate: Tensor
    ffn_gain: Tensor
    ffn_bias: Tensor
    ffn_gate: Tensor

    @classmethod
    def of(cls, table: Tensor, projected: Tensor) -> Modulation:
        """From a block's `scale_shift_table` and the projected timestep, both [1, 6, dim]."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (table + projected.float())[0]
        return cls(1 + scale, shift, gate, 1 + ffn_scale, ffn_shift, ffn_gate)


@dataclass(frozen=True)
class BlockWeights:
    """The weights of a block. Those of self-attention have q, k, v fused and heads in cache order, so that head groups are views;
    the others are the block's own, or `packed` copies of them, and in 8 bits may be `fast`; see `fkv.kernels.linear`."""

    qkv: Tensor
    qkv_bias: Tensor
    qk_norm_weight: Tensor
    out: Tensor
    out_bias: Tensor
    cross_norm: Tensor
    cross_norm_bias: Tensor
    cross_query: Tensor
    cross_query_bias: Tensor
    cross_query_norm: Tensor
    cross_out: Tensor
    cross_out_bias: Tensor
    up_proj: Tensor
    up_proj_bias: Tensor
    down_proj: Tensor
    down_proj_bias: Tensor
    fast: bool

    @classmethod
    def of(cls, block: nn.Module, order: Sequence[int], stored: Callable[[Tensor], Tensor]) -> BlockWeights:
        """From a block, with heads in this order; `stored` makes what is kept of the weight of a linear layer."""
        own, text, (widen, _, narrow) = block.attn1, block.attn2, block.ffn.net
        size, parts = own.inner_dim // own.heads, (own.to_q, own.to_k, own.to_v)
        rows = torch.cat([torch.arange(h * size, (h + 1) * size) for h in order]).to(own.to_q.weight.device)
        return cls(
            stored(torch.cat([p.weight[rows] for p in parts])),
            torch.cat([p.bias[rows] for p in parts]),
            torch.stack([own.norm_q.weight[rows], own.norm_k.weight[rows]]).float(),
            stored(own.to_out[0].weight[:, rows].contiguous()),
            own.to_out[0].bias,
            block.norm2.weight.float(),
            block.norm2.bias.float(),
            stored(text.to_q.weight),
            text.to_q.bias,
            text.norm_q.weight,
            stored(text.to_out[0].weight),
            text.to_out[0].bias,
            stored(widen.proj.weight),
            widen.proj.bias,
            stored(narrow.weight),
            narrow.bias,
            getattr(narrow, "fast", False),
        )


def normed(hidden: Tensor, gain: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer norm: hidden float32 [batch, tokens, dim], gain and bias float32 [dim] -> `dtype`, in which weights are multiplied."""
    return F.layer_norm(hidden, gain.shape, gain, bias, eps).to(dtype)


def pre_attention(hidden: Tensor, own: BlockWeights, moved: Modulation, eps: float) -> Tensor:
    """Hidden states, float32 [batch, tokens, dim] -> queries, keys and values [batch, tokens, 3 dim], before their norm and RoPE."""
    return linear(normed(hidden, moved.gain, moved.bias, eps, own.qkv.dtype), own.qkv, own.qkv_bias)


def post_attention(
    hidden: Tensor, attended: Tensor, own: BlockWeights, moved: Modulation, eps: float, keys: Tensor, values: Tensor
) -> Tensor:
    """Hidden states behind a block, from those before it and what self-attention made of them, all [batch, tokens, dim].

    keys, values : of the prompt in this block, [batch, heads, words, head_dim].
    """
    hidden = torch.addcmul(hidden, linear(attended, own.out, own.out_bias), moved.gate)
    hidden = hidden + _read(
        normed(hidden, own.cross_norm, own.cross_norm_bias, eps, attended.dtype), own, eps, keys, values
    )
    wide = normed(hidden, moved.ffn_gain, moved.ffn_bias, eps, attended.dtype)
    wide = linear(wide, own.up_proj, own.up_proj_bias, gelu=True, fast=own.fast)
    return torch.addcmul(hidden, linear(wide, own.down_proj, own.down_proj_bias, fast=own.fast), moved.ffn_gate)


def _read(x: Tensor, own: BlockWeights, eps: float, keys: Tensor, values: Tensor) -> Tensor:
    """Attention to the prompt."""
    query = F.rms_norm(
        linear(x, own.cross_query, own.cross_query_bias, fast=own.fast),
        own.cross_query_norm.shape,
        own.cross_query_norm,
        eps,
    )
    text = attention(query.unflatten(2, (keys.shape[1], -1)).transpose(1, 2), keys, values)
    return linear(text.transpose(1, 2).flatten(2), own.cross_out, own.cross_out_bias, fast=own.fast)
