"""One self-attention layer of real geometry: pages against concatenation, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fkv import roles
from fkv.cache import HeadGroup, KVCache
from fkv.kernels import attention, hybrid_attention
from fkv.models.release import ROLES
from fkv.pages import Geometry
from fkv.policies.forcing_kv import ForcingKV

from .streams import fill_cache
from .work import seconds

LAYER = 1  # measured layer of Self Forcing's head roles
CHUNKS = 4  # chunks generated before
HEAD_DIM = 128


class Layer:
    """A layer of Self Forcing's shape (12 heads of 128) in mid-stream under forcing-kv, and a new chunk to attend from.

    The chunk's queries, keys and values are there in the model's head order, [1, tokens, heads, head_dim], and in cache
    order, which projection weights permuted at load time give at no cost.

    Args:
        rows: Rows of tokens in a frame.
        cols: Columns of tokens in a frame.
        device: Where it runs.
        dtype: Of queries, keys and values.
    """

    def __init__(self, rows: int, cols: int, device: torch.device, dtype: torch.dtype) -> None:
        released = roles.load(ROLES / "self_forcing.json")
        policy = ForcingKV()
        split = roles.HeadRoles(released.num_heads, released.static[: LAYER + 1])
        geometry = Geometry(LAYER + 1, split.num_heads, HEAD_DIM, rows, cols)
        groups = policy.groups(geometry, split) or geometry.every_head
        self.cache = KVCache(geometry, groups, policy.segments_of(geometry), dtype, device)
        fill_cache(self.cache, policy, CHUNKS)
        frames = range(CHUNKS * geometry.frames_per_chunk, (CHUNKS + 1) * geometry.frames_per_chunk)
        self.cache.begin(frames)
        self.parts = [(group, torch.tensor(group.heads[LAYER], device=device)) for group, _ in self.cache.slices[LAYER]]
        self.cached = [self._earlier(group, frames) for group, _ in self.parts]
        tokens = geometry.frames_per_chunk * geometry.tokens_per_frame
        self.chunk = torch.randn(3, 1, tokens, split.num_heads, HEAD_DIM).to(device, dtype).unbind(0)
        self.order = torch.tensor(self.cache.order[LAYER], device=device)
        self.ordered = tuple(x.index_select(2, self.order) for x in self.chunk)

    def _earlier(self, group: HeadGroup, frames: range) -> tuple[Tensor, Tensor]:
        """Return K and V of earlier frames, [1, tokens, heads, head_dim], as a cache without pages stores them."""
        size = self.cache.page_tokens
        slots = group.pages.slot[~np.isin(group.pages.frame, frames)]
        index = torch.from_numpy((slots[:, None] * size + np.arange(size)).reshape(-1)).to(group.keys[LAYER].device)
        keys, values = (
            side[LAYER].index_select(2, index).transpose(1, 2).contiguous() for side in (group.keys, group.values)
        )
        return keys, values

    def store(self) -> None:
        """Write the chunk's keys and values to their pages."""
        self.cache.write(LAYER, self.ordered[1], self.ordered[2])

    def pages(self, attend: Callable = hybrid_attention.twin) -> Tensor:
        """Write to the pages, attend over views of them; heads in cache order."""
        self.store()
        groups = [(keys, values) for _, _, keys, values in self.cache.read(LAYER)]
        return attend(self.ordered[0].transpose(1, 2), groups)

    def gather(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return per head group its queries, and its cached and new keys and values concatenated."""
        q, k, v = self.chunk
        return [
            (
                q.index_select(2, heads),
                torch.cat([keys, k.index_select(2, heads)], 1),
                torch.cat([values, v.index_select(2, heads)], 1),
            )
            for (_, heads), (keys, values) in zip(self.parts, self.cached, strict=True)
        ]

    def concatenation(self, attend: Callable = F.scaled_dot_product_attention) -> Tensor:
        """Gather and concatenate, attend, put the heads back; heads in the model's order."""
        out = torch.empty_like(self.chunk[0])
        for (_, heads), group in zip(self.parts, self.gather(), strict=True):
            out.index_copy_(2, heads, attend(*(x.transpose(1, 2) for x in group)).transpose(1, 2))
        return out


@torch.inference_mode()
def measure(
    rows: int, cols: int, device: torch.device, dtype: torch.dtype, repeats: int, warmup: int
) -> dict[str, Any]:
    """Measure one layer's write and attention in one pass, implementations interleaved.

    Concatenation attends as PyTorch does (`speedup`), and once more as the pages do, which shows what pages alone gain
    (`speedup_same_attention`). On CUDA the Triton kernel is measured as well.

    Args:
        rows: As in `Layer`, like `cols`, `device` and `dtype`.
        cols: See there.
        device: See there.
        dtype: See there.
        repeats: Rounds that count.
        warmup: Rounds before them that do not.

    Returns:
        Sizes; `seconds` by implementation; the speedups, medians over rounds; `difference` of the outputs from those of
        concatenation, relative to their norm; `equal`, whether it is within the precision of the type.
    """
    layer = Layer(rows, cols, device, dtype)
    ways: dict[str, Callable[[], Any]] = {
        "pages": layer.pages,
        "concatenation": layer.concatenation,
        "concatenation, the pages' attention": lambda: layer.concatenation(
            lambda q, *kv: attention(q, *(x.contiguous() for x in kv))
        ),
        "pages: write only": layer.store,
        "concatenation: gather and cat only": layer.gather,
    }
    if device.type == "cuda":
        ways["pages, Triton attention"] = lambda: layer.pages(hybrid_attention.triton)
    expected = layer.concatenation().transpose(1, 2).index_select(1, layer.order)
    complete = [name for name in ways if not name.startswith("concatenation") and not name.endswith("only")]
    differences = {name: float((ways[name]() - expected).norm() / expected.norm()) for name in complete}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + repeats):
        for name in list(ways) if turn % 2 == 0 else reversed(list(ways)):
            spent = seconds(ways[name], device)
            if turn >= warmup:
                took[name].append(spent)
    geometry = layer.cache.geometry

    def speedup(other: str) -> float:
        """How many times as fast pages are."""
        return statistics.median(slow / fast for slow, fast in zip(took[other], took["pages"], strict=True))

    return {
        "heads": {group.name: len(group.heads[LAYER]) for group, _ in layer.parts},
        "head_dim": geometry.head_dim,
        "tokens_per_frame": geometry.tokens_per_frame,
        "chunk_tokens": layer.chunk[0].shape[1],
        "kv_tokens": {group.name: layer.cache.tokens()[group.name] for group, _ in layer.parts},
        "seconds": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name, values in took.items()
        },
        "speedup": speedup("concatenation"),
        "speedup_same_attention": speedup("concatenation, the pages' attention"),
        "difference": differences,
        "equal": are_equal(differences.values(), dtype),
    }


def are_equal(differences: Iterable[float], dtype: torch.dtype) -> bool:
    """Whether relative differences are all within the precision of a type; NaN is not."""
    return all(difference <= 8 * torch.finfo(dtype).eps for difference in differences)
