"""What a pass must at least compute and move, what the machine can do, and how long the bare calls take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fkv.cache import KVCache
from fkv.kernels import attention, linear
from fkv.pages import Heads
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.passes import TextContext

PRODUCT_SIDE = {"cuda": 8192, "cpu": 1536}  # rows and columns of the matrices whose product is measured
COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}


@dataclass(frozen=True)
class Ceilings:
    """Operations and bytes per second of a large matrix product and of a large copy (bytes read and written)."""

    flops: float
    bandwidth: float

    def or_better(self, other: Ceilings) -> Ceilings:
        """Return the higher of each ceiling."""
        return Ceilings(max(self.flops, other.flops), max(self.bandwidth, other.bandwidth))


@dataclass(frozen=True)
class Work:
    """Matrix products and attention calls: (floating-point operations, bytes of inputs and outputs) of each.

    Norms, activations, RoPE and the re-reading of intermediate results are left out: they can be fused, so times that
    follow from this are bounds from below.
    """

    calls: tuple[tuple[int, int], ...]

    @property
    def flops(self) -> int:
        """Floating-point operations of all calls."""
        return sum(flops for flops, _ in self.calls)

    @property
    def bytes(self) -> int:
        """Bytes of inputs and outputs of all calls."""
        return sum(size for _, size in self.calls)

    def times(self, count: int) -> Work:
        """Repeat the calls."""
        return Work(self.calls * count)

    def roofline(self, ceilings: Ceilings) -> float:
        """Return the least seconds of these calls on such a machine, each at the ceiling that binds it."""
        return sum(max(flops / ceilings.flops, size / ceilings.bandwidth) for flops, size in self.calls)


def pass_work(
    transformer: CausalTransformer,
    heads: Mapping[str, Heads],
    kv_tokens: Mapping[str, int],
    tokens: int,
    text_tokens: int,
    kv_itemsize: int,
) -> Work:
    """Count one pass over a chunk.

    Args:
        transformer: What computes it.
        heads: Heads per layer, by head group.
        kv_tokens: Key length, by head group.
        tokens: Of the chunk.
        text_tokens: Of the prompt.
        kv_itemsize: Bytes of a stored element of keys and values.
    """
    config = transformer.model.config
    width = transformer.heads * transformer.head_dim
    itemsize = transformer.dtype.itemsize
    stored = transformer.model.blocks[0].ffn.net[2].weight.element_size()

    def linear(rows: int, inputs: int, outputs: int, weight_itemsize: int = itemsize) -> tuple[int, int]:
        flops = 2 * rows * inputs * outputs
        return flops, itemsize * rows * (inputs + outputs) + weight_itemsize * inputs * outputs

    def attention(head_count: int, key_tokens: int, key_itemsize: int = itemsize) -> tuple[int, int]:
        dims = head_count * transformer.head_dim
        return 4 * dims * tokens * key_tokens, 2 * dims * (itemsize * tokens + key_itemsize * key_tokens)

    pixels = transformer.patch**2
    calls = [linear(tokens, config.in_channels * pixels, width), linear(tokens, width, config.out_channels * pixels)]
    for layer in range(transformer.layers):
        calls += [linear(tokens, width, 3 * width), linear(tokens, width, width)]
        calls += [
            attention(len(group[layer]), kv_tokens[name], kv_itemsize) for name, group in heads.items() if group[layer]
        ]
        calls += [
            linear(tokens, width, width, stored),
            attention(transformer.heads, text_tokens),
            linear(tokens, width, width, stored),
        ]
        calls += [linear(tokens, width, config.ffn_dim, stored), linear(tokens, config.ffn_dim, width, stored)]
    return Work(tuple(calls))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def ceilings(device: torch.device, dtype: torch.dtype) -> Callable[[], Ceilings]:
    """Return a function that measures both ceilings once and holds no memory in between.

    Args:
        device: Of the machine.
        dtype: In which the product is computed.
    """
    side = PRODUCT_SIDE[device.type]
    count = COPY_BYTES[device.type]

    def measure() -> Ceilings:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        source, target = (torch.ones(count, dtype=torch.uint8, device=device) for _ in range(2))
        _ = a @ b  # the first product of a size may be slow
        product_s = seconds(lambda: a @ b, device)
        copy_s = seconds(lambda: target.copy_(source), device)
        return Ceilings(2 * side**3 / product_s, 2 * count / copy_s)

    return measure


@torch.inference_mode()
def bare_calls(
    transformer: CausalTransformer,
    cache: KVCache,
    kv_tokens: Mapping[str, int],
    tokens: int,
    text: TextContext,
    passes: int = 1,
) -> None:
    """Run the matrix products and attention calls of some passes, and nothing between them but the widening of fp8.

    Args:
        transformer: Whose weights are used.
        cache: Whose buffers are used.
        kv_tokens: Key length, by head group.
        tokens: Of the chunk.
        text: The prompt.
        passes: How often.
    """
    model = transformer.model
    width = transformer.heads * transformer.head_dim
    first = model.patch_embedding.weight.flatten(1)
    last = model.proj_out.weight
    x = torch.zeros(1, tokens, width, device=transformer.device, dtype=transformer.dtype)
    patches = x.new_zeros(1, tokens, first.shape[1])
    wide = x.new_zeros(1, tokens, model.config.ffn_dim)
    query = x.unflatten(2, (transformer.heads, -1)).transpose(1, 2)
    # In place of the area of `KVCache` where chunks lie apart and buffers hold less than is attended to.
    area = torch.zeros_like(query[:, :, :1], dtype=cache.dtype).repeat(1, 1, max(kv_tokens.values()), 1)

    for _ in range(passes):
        linear(patches, first, model.patch_embedding.bias)
        for layer, block in enumerate(transformer.weights_for(cache.order)):
            linear(x, block.qkv, block.qkv_bias)
            for group, heads in cache.slices[layer]:
                length = kv_tokens[group.name]
                held = group.keys[layer].shape[2] >= length
                keys, values = (group.keys[layer], group.values[layer]) if held else (area[:, heads], area[:, heads])
                attention(query[:, heads], keys[:, :, :length], values[:, :, :length])
            linear(x, block.out, block.out_bias)
            linear(x, block.cross_query, block.cross_query_bias, fast=block.fast)
            attention(query, *text.keys_values[layer])
            linear(x, block.cross_out, block.cross_out_bias, fast=block.fast)
            linear(x, block.up_proj, block.up_proj_bias, fast=block.fast)
            linear(wide, block.down_proj, block.down_proj_bias, fast=block.fast)
        linear(x, last, model.proj_out.bias)
