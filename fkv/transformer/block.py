"""A Wan block in two halves, before and after self-attention: `pre_attention` and `post_attention`.

The arithmetic of diffusers' `WanTransformerBlock` in fewer steps. All tokens of a pass share one timestep, so its scale
and shift become weight and bias of the layer norm, computed once per timestep (`Modulation`). Hidden states stay in
float32 from block to block, which norms and gates need; branches are computed in the type of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fkv.kernels import attention, linear


@dataclass(frozen=True)
class Modulation:
    """How a timestep modulates a block, float32 [dim] each: the norm before a branch and the gate behind it."""

    norm_weight: Tensor
    norm_bias: Tensor
    gate: Tensor
    ffn_norm_weight: Tensor
    ffn_norm_bias: Tensor
    ffn_gate: Tensor

    @classmethod
    def of(cls, scale_shift_table: Tensor, timestep_proj: Tensor) -> Modulation:
        """Compute the modulation of a block.

        Args:
            scale_shift_table: The block's, [1, 6, dim].
            timestep_proj: The projected timestep, [1, 6, dim].
        """
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (scale_shift_table + timestep_proj.float())[0]
        return cls(1 + scale, shift, gate, 1 + ffn_scale, ffn_shift, ffn_gate)


@dataclass(frozen=True)
class BlockWeights:
    """The weights of a block, with q, k and v of self-attention fused.

    Heads of self-attention are in cache order, so head groups are views. Weights of linear layers may be `packed` or
    fp8, see `fkv.kernels.linear`; `fast` says that fp8 weights are multiplied in fp8.
    """

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
    def of(cls, block: Any, order: Sequence[int], stored: Callable[[Tensor], Tensor]) -> BlockWeights:
        """Gather the weights of a block.

        Args:
            block: A `WanTransformerBlock`.
            order: Its heads in cache order.
            stored: From the weight of a linear layer, the tensor to keep.
        """
        self_attention = block.attn1
        cross_attention = block.attn2
        up_proj, _, down_proj = block.ffn.net
        size = self_attention.inner_dim // self_attention.heads
        projections = (self_attention.to_q, self_attention.to_k, self_attention.to_v)
        rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in order])
        rows = rows.to(self_attention.to_q.weight.device)
        return cls(
            qkv=stored(torch.cat([projection.weight[rows] for projection in projections])),
            qkv_bias=torch.cat([projection.bias[rows] for projection in projections]),
            qk_norm_weight=torch.stack(
                [self_attention.norm_q.weight[rows], self_attention.norm_k.weight[rows]]
            ).float(),
            out=stored(self_attention.to_out[0].weight[:, rows].contiguous()),
            out_bias=self_attention.to_out[0].bias,
            cross_norm=block.norm2.weight.float(),
            cross_norm_bias=block.norm2.bias.float(),
            cross_query=stored(cross_attention.to_q.weight),
            cross_query_bias=cross_attention.to_q.bias,
            cross_query_norm=cross_attention.norm_q.weight,
            cross_out=stored(cross_attention.to_out[0].weight),
            cross_out_bias=cross_attention.to_out[0].bias,
            up_proj=stored(up_proj.proj.weight),
            up_proj_bias=up_proj.proj.bias,
            down_proj=stored(down_proj.weight),
            down_proj_bias=down_proj.bias,
            fast=getattr(down_proj, "fast", False),
        )


def layer_norm(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Normalise hidden states in float32 and convert them for the products that follow.

    Args:
        hidden: float32 [batch, tokens, dim].
        weight: float32 [dim].
        bias: float32 [dim].
        eps: Of the norm.
        dtype: Type of the result.

    Returns:
        [batch, tokens, dim] of `dtype`.
    """
    return F.layer_norm(hidden, weight.shape, weight, bias, eps).to(dtype)


def pre_attention(hidden: Tensor, weights: BlockWeights, modulation: Modulation, eps: float) -> Tensor:
    """Compute a block up to self-attention.

    Args:
        hidden: Hidden states before the block, float32 [batch, tokens, dim].
        weights: Of the block.
        modulation: Of the block at the timestep.
        eps: Of the norms.

    Returns:
        Queries, keys and values before their norm and RoPE, [batch, tokens, 3 * dim].
    """
    x = layer_norm(hidden, modulation.norm_weight, modulation.norm_bias, eps, weights.qkv.dtype)
    return linear(x, weights.qkv, weights.qkv_bias)


def post_attention(
    hidden: Tensor,
    attended: Tensor,
    weights: BlockWeights,
    modulation: Modulation,
    eps: float,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Compute a block from self-attention on: output projection, cross-attention, feed-forward.

    Args:
        hidden: Hidden states before the block, float32 [batch, tokens, dim].
        attended: The result of self-attention, [batch, tokens, dim].
        weights: Of the block.
        modulation: Of the block at the timestep.
        eps: Of the norms.
        keys: Of the prompt in this block, [batch, heads, text tokens, head_dim].
        values: Like `keys`.

    Returns:
        Hidden states after the block, float32 [batch, tokens, dim].
    """
    dtype = attended.dtype
    hidden = torch.addcmul(hidden, linear(attended, weights.out, weights.out_bias), modulation.gate)
    x = layer_norm(hidden, weights.cross_norm, weights.cross_norm_bias, eps, dtype)
    hidden = hidden + _cross_attention(x, weights, eps, keys, values)
    x = layer_norm(hidden, modulation.ffn_norm_weight, modulation.ffn_norm_bias, eps, dtype)
    x = linear(x, weights.up_proj, weights.up_proj_bias, gelu=True, fast=weights.fast)
    x = linear(x, weights.down_proj, weights.down_proj_bias, fast=weights.fast)
    return torch.addcmul(hidden, x, modulation.ffn_gate)


def _cross_attention(x: Tensor, weights: BlockWeights, eps: float, keys: Tensor, values: Tensor) -> Tensor:
    """Attend to the prompt."""
    query = linear(x, weights.cross_query, weights.cross_query_bias, fast=weights.fast)
    query = F.rms_norm(query, weights.cross_query_norm.shape, weights.cross_query_norm, eps)
    heads = keys.shape[1]
    attended = attention(query.unflatten(2, (heads, -1)).transpose(1, 2), keys, values)
    return linear(attended.transpose(1, 2).flatten(2), weights.cross_out, weights.cross_out_bias, fast=weights.fast)
