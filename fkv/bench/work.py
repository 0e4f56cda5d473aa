"""What a pass must compute and move at the least, what the machine can do, and what the bare calls take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fkv.cache import Heads, KVCache
from fkv.kernels import attention, linear
from fkv.transformer.causal import CausalTransformer, TextContext

PRODUCT_SIDE = {"cuda": 8192, "cpu": 1536}
COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}


@dataclass(frozen=True)
class Ceilings:
    """Operations and bytes per second of a large matrix product and of a large copy (bytes read and written)."""

    flops: float
    bandwidth: float

    def or_better(self, other: Ceilings) -> Ceilings:
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
        return sum(flops for flops, _ in self.calls)

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.calls)

    def times(self, count: int) -> Work:
        return Work(self.calls * count)

    def roofline(self, ceilings: Ceilings) -> float:
        """Seconds that no implementation of these calls can beat on such a machine: each at the ceiling that binds it."""
        return sum(max(flops / ceilings.flops, size / ceilings.bandwidth) for flops, size in self.calls)


def pass_work(
    transformer: CausalTransformer,
    heads: Mapping[str, Heads],
    kv_tokens: Mapping[str, int],
    tokens: int,
    words: int,
    kv_item: int,
) -> Work:
    """One pass over a chunk of `tokens` tokens: heads and key length per head group, `words` text tokens, bytes of a stored number."""
    config, width, item = transformer.model.config, transformer.heads * transformer.head_dim, transformer.dtype.itemsize
    stored = transformer.model.blocks[0].ffn.net[2].weight.element_size()

    def linear(rows: int, inputs: int, outputs: int, weight_item: int = item) -> tuple[int, int]:
        return 2 * rows * inputs * outputs, item * rows * (inputs + outputs) + weight_item * inputs * outputs

    def attention(count: int, keys: int, key_item: int = item) -> tuple[int, int]:
        return 4 * count * tokens * keys * transformer.head_dim, 2 * count * (
            item * tokens + key_item * keys
        ) * transformer.head_dim

    pixels = transformer.patch**2
    calls = [linear(tokens, config.in_channels * pixels, width), linear(tokens, width, config.out_channels * pixels)]
    for layer in range(transformer.layers):
        calls += [linear(tokens, width, 3 * width), linear(tokens, width, width)]
        calls += [
            attention(len(group[layer]), kv_tokens[name], kv_item) for name, group in heads.items() if group[layer]
        ]
        calls += [
            linear(tokens, width, width, stored),
            attention(transformer.heads, words),
            linear(tokens, width, width, stored),
        ]
        calls += [linear(tokens, width, config.ffn_dim, stored), linear(tokens, config.ffn_dim, width, stored)]
    return Work(tuple(calls))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def ceilings(device: torch.device, dtype: torch.dtype) -> Callable[[], Ceilings]:
    """A function that measures both ceilings once, and holds no memory in between."""
    side, count = PRODUCT_SIDE[device.type], COPY_BYTES[device.type]

    def measure() -> Ceilings:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        source, target = (torch.ones(count, dtype=torch.uint8, device=device) for _ in range(2))
        product, copy = (lambda: a @ b), (lambda: target.copy_(source))
        product()
        return Ceilings(2 * side**3 / seconds(product, device), 2 * count / seconds(copy, device))

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
    """The matrix products and attention calls of some passes, on their own weights and buffers, and nothing between them
    but the widening of what is stored in 8 bits."""
    model, width = transformer.model, transformer.heads * transformer.head_dim
    first, last = model.patch_embedding.weight.flatten(1), model.proj_out.weight
    x = torch.zeros(1, tokens, width, device=transformer.device, dtype=transformer.dtype)
    patches, wide = x.new_zeros(1, tokens, first.shape[1]), x.new_zeros(1, tokens, model.config.ffn_dim)
    query = x.unflatten(2, (transformer.heads, -1)).transpose(1, 2)

    for _ in range(passes):
        linear(patches, first, model.patch_embedding.bias)
        for layer, own in enumerate(transformer.weights_for(cache.order)):
            linear(x, own.qkv, own.qkv_bias)
            for group, heads in cache.slices[layer]:
                keys, values = (side[layer][:, :, : kv_tokens[group.name]] for side in (group.keys, group.values))
                attention(query[:, heads], keys, values)
            linear(x, own.out, own.out_bias)
            linear(x, own.cross_query, own.cross_query_bias, fast=own.fast)
            attention(query, *text.keys_values[layer])
            linear(x, own.cross_out, own.cross_out_bias, fast=own.fast)
            linear(x, own.up_proj, own.up_proj_bias, fast=own.fast)
            linear(wide, own.down_proj, own.down_proj_bias, fast=own.fast)
        linear(x, last, model.proj_out.bias)
