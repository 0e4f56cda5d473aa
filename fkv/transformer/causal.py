"""diffusers' WanTransformer3DModel with a paged cache in its attention.

`CausalTransformer` keeps the library's model and its weights and runs the blocks itself (`fkv.transformer.block`):
self-attention writes the chunk's K and V to the cache and reads every head group from it (`fkv.transformer.attention`);
cross-attention reads the prompt's K and V, computed once.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from fkv.cache import KVCache
from fkv.kernels import choose_attention, linear, one_thread_between, packed, rope_freqs_cis
from fkv.pages import Geometry, Heads

from .attention import self_attention, stacked
from .block import BlockWeights, Modulation, layer_norm, post_attention, pre_attention
from .coordinates import input_channels, with_coordinates
from .graphs import Capture, CudaCapture, PassGraphs, check_graphs
from .passes import Pass, TextContext
from .probes import NO_PROBES, Probes

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel

# How many head-order copies of the fused weights to cache, and in how many bytes together: enough for two of Wan 1.3B.
# One is always cached, and two with CUDA graphs: a captured pass ends with its weights, so two streams side by side
# would otherwise never replay one.
MAX_HEAD_ORDERS = 4
MAX_ORDER_BYTES = 1_200_000_000

# Hidden states of at most this many elements are computed by one thread, see `fkv.kernels.one_thread_between`.
ONE_THREAD_ELEMENTS = 2**16

MAX_TIMESTEPS = 8  # timesteps whose modulation is cached


@dataclass(frozen=True)
class PassModulation:
    """How a timestep modulates a pass: every block, and the shift and scale of the last norm, float32 [dim] each."""

    blocks: tuple[Modulation, ...]
    shift: Tensor
    scale: Tensor


def check_compiler() -> None:
    """Check that the C++ compiler is there that `torch.compile` would call.

    Raises:
        ValueError: It is not.
    """
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if not shutil.which(compiler):
        raise ValueError(
            f"--compile needs a C++ compiler and {compiler} is not there; "
            f"install it, or name another in the variable CXX"
        )


class CausalTransformer:
    """A chunk-causal, cached view of a `WanTransformer3DModel`.

    Several streams may share one, in several threads; captured passes take turns. Models with more input than output
    channels get coordinate channels (the tiny model).

    Args:
        model: The model, or `fkv.models.wan_transformer.WanTransformer`; it is set to evaluation in place and its
            weights are shared.

    Raises:
        ValueError: The model is an image-to-video one, which this project does not stream, or its patches are not
            squares of one latent frame.
    """

    def __init__(self, model: WanTransformer3DModel) -> None:
        config = model.config
        if config.image_dim is not None or config.added_kv_proj_dim is not None:
            raise ValueError("this is an image-to-video checkpoint; only text-to-video models can be streamed")
        frames, rows, cols = config.patch_size
        if frames != 1 or cols != rows:
            raise ValueError(
                f"patches must be squares of one latent frame, this model's are {frames} x {rows} x {cols}"
            )
        self.model = model.eval().requires_grad_(False)
        self.patch: int = rows
        self.layers: int = config.num_layers
        self.heads: int = config.num_attention_heads
        self.head_dim: int = config.attention_head_dim
        self.channels: int = config.out_channels
        self.eps: float = config.eps
        self.events: bool = config.in_channels == input_channels(config.out_channels, events=True)
        self.coordinates: bool = self.events or config.in_channels == input_channels(config.out_channels)
        self._pre_attention = pre_attention
        self._post_attention = post_attention
        self._lock = threading.Lock()
        self._orders: dict[Heads, list[BlockWeights]] = {}
        self._modulations: dict[float, PassModulation] = {}
        self._graphs: PassGraphs | None = None
        if self.device.type == "cpu":
            choose_attention(self.head_dim, self.dtype)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type in which products are computed."""
        return self.model.blocks[0].attn1.to_q.weight.dtype

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._pre_attention is not pre_attention

    def compile(self) -> None:
        """Fuse what lies between attention calls with `torch.compile`; shapes there stay fixed while the cache grows.

        Raises:
            ValueError: As in `check_compiler`.
        """
        check_compiler()
        self._pre_attention = torch.compile(pre_attention, fullgraph=True)
        self._post_attention = torch.compile(post_attention, fullgraph=True)
        self._orders.clear()

    @property
    def captures(self) -> bool:
        """Whether `capture_graphs` was called."""
        return self._graphs is not None

    def capture_graphs(self, capture: Capture | None = None) -> None:
        """Capture the passes of steady streams and replay them.

        Args:
            capture: How to capture; as CUDA graphs by default.

        Raises:
            ValueError: As in `check_graphs`, without a `capture`.
        """
        if capture is None:
            check_graphs(str(self.device))
        self._graphs = PassGraphs(capture or CudaCapture())

    def geometry(self, height: int, width: int, frames_per_chunk: int, batch: int = 1) -> Geometry:
        """Return the cache geometry of a stream.

        Args:
            height: Of a latent frame.
            width: Of a latent frame.
            frames_per_chunk: Latent frames of a chunk.
            batch: Videos generated at once.
        """
        rows, cols = height // self.patch, width // self.patch
        return Geometry(self.layers, self.heads, self.head_dim, rows, cols, frames_per_chunk, batch)

    @torch.inference_mode()
    def prepare_text(self, embeds: Tensor) -> TextContext:
        """Compute K and V of a prompt for cross-attention.

        Args:
            embeds: [batch, text tokens, text_dim], zero-padded; padding is attended to, as the models were trained.

        Raises:
            ValueError: `embeds` has another shape.
        """
        expected = self.model.config.text_dim
        if embeds.dim() != 3 or embeds.shape[2] != expected:
            raise ValueError(f"text embeddings must be [batch, tokens, {expected}], not {list(embeds.shape)}")
        embeds = embeds.to(self.device, self.dtype)
        hidden = self.model.condition_embedder.text_embedder(embeds)
        pairs = []
        for block in self.model.blocks:
            attn = block.attn2
            keys, values = (
                x.unflatten(2, (attn.heads, -1)).transpose(1, 2).contiguous()
                for x in (attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden))
            )
            pairs.append((keys, values))
        return TextContext(tuple(pairs))

    def rope(self, frames: Sequence[int], rows: int, cols: int) -> Tensor:
        """Return the RoPE rotations of a chunk's tokens, complex64 [tokens, head_dim / 2].

        Args:
            frames: Position in time of each latent frame.
            rows: Rows of tokens in a frame.
            cols: Columns of tokens in a frame.
        """
        return rope_freqs_cis(frames, rows, cols, self.head_dim, self.device)

    def weights_for(self, order: Heads) -> list[BlockWeights]:
        """Return the weights per layer with heads in this order.

        They are computed once per order; the last few orders are cached (`MAX_HEAD_ORDERS`).

        Args:
            order: The heads per layer, in cache order.
        """
        with self._lock:
            if order not in self._orders:
                order_bytes = 4 * self.layers * (self.heads * self.head_dim) ** 2 * self.dtype.itemsize
                least = 1 if self._graphs is None else 2
                limit = max(least, min(MAX_HEAD_ORDERS, MAX_ORDER_BYTES // order_bytes))
                while len(self._orders) >= limit:
                    self._orders.pop(next(iter(self._orders)))
                stored = (lambda weight: weight) if self.compiled else packed  # the compiler packs weights itself
                self._orders[order] = [
                    BlockWeights.of(block, heads, stored) for block, heads in zip(self.model.blocks, order, strict=True)
                ]
            return self._orders[order]

    def _modulation(self, timestep: float) -> PassModulation:
        """Return the modulation of a timestep; the last few are cached (`MAX_TIMESTEPS`)."""
        with self._lock:
            if timestep not in self._modulations:
                if len(self._modulations) >= MAX_TIMESTEPS:
                    self._modulations.pop(next(iter(self._modulations)))
                # The embedder wants a text too; what it makes of it is not used.
                no_text = torch.zeros(1, 1, self.model.config.text_dim, device=self.device, dtype=self.dtype)
                times = torch.tensor([timestep], device=self.device)
                embedded, projected, *_ = self.model.condition_embedder(times, no_text)
                projected = projected.unflatten(1, (6, -1))
                blocks = tuple(Modulation.of(block.scale_shift_table, projected) for block in self.model.blocks)
                shift, scale = (self.model.scale_shift_table + embedded).float()[0]
                self._modulations[timestep] = PassModulation(blocks, shift, scale)
            return self._modulations[timestep]

    @torch.inference_mode()
    def __call__(
        self,
        latents: Tensor,
        timestep: float,
        text: TextContext,
        cache: KVCache,
        freqs_cis: Tensor,
        probes: Probes = NO_PROBES,
    ) -> Tensor:
        """Run one pass over the current chunk; its K and V go to the pages that `cache.begin` reserved.

        Args:
            latents: [batch, frames, C, h, w].
            timestep: 0 to 1000.
            text: The prompt, from `prepare_text`.
            cache: The stream's cache.
            freqs_cis: Of the chunk's tokens, from `rope`.
            probes: See queries and keys.

        Returns:
            The flow, of the shape of `latents`.
        """
        modulation = self._modulation(timestep)
        weights = self.weights_for(cache.order)

        def work(latents: Tensor, freqs_cis: Tensor) -> Tensor:
            one = Pass(latents, timestep, text, cache, freqs_cis, probes)
            with one_thread_between() if self._fits_one_thread(len(freqs_cis) * len(latents)) else nullcontext():
                return self._flow([one], modulation, weights)

        inputs = (latents.to(self.device), freqs_cis)
        if self._graphs is None or probes:
            return work(*inputs)
        with self._lock:
            return self._graphs.run(work, inputs, timestep, cache, (modulation, weights, text))

    @torch.inference_mode()
    def together(self, passes: Sequence[Pass]) -> list[Tensor]:
        """Run one pass of several streams at once: one product for all, then attention of each over its own cache.

        Rounding differs from that of the passes one by one, since the products have other sizes.

        Args:
            passes: Of one `Pass.kind`.

        Returns:
            The flow of each.
        """
        first = passes[0]
        modulation = self._modulation(first.timestep)
        weights = self.weights_for(first.cache.order)
        tokens = sum(len(each.freqs_cis) * len(each.latents) for each in passes)
        with one_thread_between() if self._fits_one_thread(tokens) else nullcontext():
            flow = self._flow(passes, modulation, weights)
        return list(flow.split([len(each.latents) for each in passes]))

    def _fits_one_thread(self, tokens: int) -> bool:
        """Whether the operations between products and attention are too small for several threads of a processor.

        Only in float32 (in bfloat16 it costs time), and not compiled: the compiler builds the number of threads into
        loops.
        """
        small = tokens * self.heads * self.head_dim <= ONE_THREAD_ELEMENTS
        return small and self.device.type == "cpu" and self.dtype == torch.float32 and not self.compiled

    def _flow(self, passes: Sequence[Pass], modulation: PassModulation, weights: Sequence[BlockWeights]) -> Tensor:
        model = self.model
        latents = passes[0].latents
        batches = [len(each.latents) for each in passes]
        patches = stacked([self._patches(each) for each in passes])
        embedding = model.patch_embedding
        hidden = linear(patches.flatten(1, 3), embedding.weight.flatten(1), embedding.bias).float()
        texts = zip(*(each.text.keys_values for each in passes), strict=True)
        blocks = zip(weights, modulation.blocks, texts, strict=True)
        for layer, (block, block_modulation, text) in enumerate(blocks):
            qkv = self._pre_attention(hidden, block, block_modulation, self.eps).split(batches)
            attended = self_attention(layer, qkv, block, passes, self.eps)
            keys, values = (stacked(side) for side in zip(*text, strict=True))
            hidden = self._post_attention(hidden, attended, block, block_modulation, self.eps, keys, values)
        out = layer_norm(hidden, 1 + modulation.scale, modulation.shift, self.eps, self.dtype)
        flow = linear(out, model.proj_out.weight, model.proj_out.bias)
        flow = flow.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, patches.shape[1:4])
        flow = flow.permute(0, 1, 6, 2, 4, 3, 5)  # [batch, frames, C, rows, patch, cols, patch]
        return flow.flatten(5).flatten(3, 4).to(latents.dtype)

    def _patches(self, each: Pass) -> Tensor:
        """The patches of a chunk, with coordinates where the model takes them.

        [batch, frames, rows, cols, channels * patch * patch].
        """
        x = each.latents.to(self.device, self.dtype).transpose(1, 2)
        if self.coordinates:
            x = with_coordinates(x, each.cache.geometry.frames_per_chunk, each.cache.opening, self.events)
        return pixel_unshuffle(x.transpose(1, 2), self.patch).permute(0, 1, 3, 4, 2)
