"""Published cache rules as policies that note what they decide, made from the authors' parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fkv.cache import KVCache
from fkv.policies import ChunkState, Policy
from fkv.policies.commit import Commit
from fkv.policies.deep_forcing import DeepForcing
from fkv.policies.dummy_forcing import DummyForcing
from fkv.policies.ema_sink import EmaSink
from fkv.policies.fade_mem import Entry, FadeMem
from fkv.policies.infinity_rope import InfinityRope
from fkv.policies.longlive import LongLive
from fkv.policies.mem_rope import MemRope
from fkv.policies.near_sink import DeepSink, NearSink
from fkv.policies.recency import Recency
from fkv.policies.relax_forcing import RelaxForcing
from fkv.policies.rolling_sink import RollingSink
from fkv.policies.tether_cache import TetherCache

# Policies that note what they decide.


@dataclass(frozen=True)
class NotedDummy(DummyForcing):
    rows: list[Tensor] = field(init=False, default_factory=list)
    noted: dict[str, np.ndarray] = field(init=False, default_factory=dict)

    def sampled_rows(self, layer: int, count: int, tokens: int) -> Tensor:
        return self.rows[layer]

    def classes(self, mass: np.ndarray) -> np.ndarray:
        self.noted["mass"] = mass.transpose(1, 0, 2)
        self.noted["classes"] = super().classes(mass)
        return self.noted["classes"]


@dataclass(frozen=True)
class NotedRelax(RelaxForcing):
    noted: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(init=False, default_factory=dict)

    def scores(self, state: ChunkState, candidates: np.ndarray, sink: np.ndarray, tail: np.ndarray) -> np.ndarray:
        scores = super().scores(state, candidates, sink, tail)
        self.noted[state.chunk] = candidates, scores, np.empty(0)
        return scores

    def chosen(self, state: ChunkState, sink: np.ndarray, middle: np.ndarray, tail: np.ndarray) -> np.ndarray:
        chosen = super().chosen(state, sink, middle, tail)
        candidates, scores, _ = self.noted.get(state.chunk, (chosen, np.full(len(chosen), np.nan), chosen))
        self.noted[state.chunk] = candidates, scores, chosen
        return chosen


@dataclass(frozen=True)
class NotedDeep(DeepForcing):
    noted: dict[tuple[int, int], dict[str, np.ndarray]] = field(init=False, default_factory=dict)

    def scores(self, cache: KVCache, layer: int, rows: np.ndarray, queries: Tensor) -> np.ndarray:
        scores = super().scores(cache, layer, rows, queries)
        chunk = max(cache.frames()) // cache.geometry.frames_per_chunk
        pages = cache.groups[f"layer {layer}"].pages
        tokens = pages.frame[rows] * cache.segments + pages.segment[rows]
        self.noted[chunk, layer] = {"candidates": tokens, "scores": scores}
        return scores

    def select(self, state: ChunkState, layer: int, query: Tensor) -> None:
        super().select(state, layer, query)
        if (state.chunk, layer) in self.noted and state.step == "step 0":
            self.noted[state.chunk, layer]["selected"] = state.cache.notes["deep"]["chosen"][f"layer {layer}"]


@dataclass(frozen=True)
class NotedTether(TetherCache):
    noted: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(init=False, default_factory=dict)

    def scores(self, state: ChunkState, layer: int, name: str, query: Tensor, candidates: np.ndarray) -> np.ndarray:
        scores = super().scores(state, layer, name, query, candidates)
        self.noted[state.chunk, layer] = candidates, scores
        return scores


@dataclass(frozen=True)
class NotedFade(FadeMem):
    noted: list[tuple[int, list[Entry]]] = field(init=False, default_factory=list)

    def chunk_positions(self, state: ChunkState) -> Sequence[int]:
        if not self.noted or self.noted[-1][0] != state.chunk:
            self.noted.append((state.chunk, list(self.entries(state.cache))))
        return super().chunk_positions(state)


def _contents(cache: KVCache, frames: Iterable[int]) -> list[np.ndarray]:
    """K before RoPE and V of whole frames, [layers, frames, tokens, heads, head_dim] each."""
    (group,) = cache.groups.values()
    rows = [np.flatnonzero(group.pages.frame == frame) for frame in frames]
    if not all(len(each) for each in rows):
        return []
    layers = range(cache.geometry.layers)
    pairs = [[cache.unrotated(layer, group.name, each) for each in rows] for layer in layers]
    contents = [[[pair[at][0].flatten(1, 2).transpose(0, 1) for pair in row] for row in pairs] for at in range(2)]
    return [torch.stack([torch.stack(row) for row in each]).float().cpu().numpy() for each in contents]


@dataclass(frozen=True)
class NotedMean(MemRope):
    noted: list[list[np.ndarray]] = field(init=False, default_factory=list)

    def edit(self, state: ChunkState) -> None:
        self.noted.append(_contents(state.cache, self.memory))
        super().edit(state)


@dataclass(frozen=True)
class NotedSink(EmaSink):
    noted: list[list[np.ndarray]] = field(init=False, default_factory=list)

    def edit(self, state: ChunkState) -> None:
        self.noted.append(_contents(state.cache, range(self.sink_frames)))
        super().edit(state)


# From the authors' parameters to ours.


def _longlive(p: dict[str, Any]) -> Policy:
    base = LongLive(
        sink_frames=p["sink_size"],
        window_frames=p["local_attn_size"],
        relative=p["use_infinite_attention"],
        global_sink=p["global_sink"],
    )
    return Commit(base, p["commit_frames"]) if p["commit_rule"] else base


def _near_sink(p: dict[str, Any]) -> Policy:
    kind = Recency if p["recency_bias"] else NearSink
    base = kind(sink_frames=p["sink_size"], window_frames=p["sink_size"] + p["recent_frames"])
    return Commit(base, p["commit_frames"]) if p["commit_frames"] else base


def _tether(p: dict[str, Any]) -> Policy:
    base = NotedTether(
        budget_frames=p["budget_size"],
        sink_frames=p["sink_size"],
        recent_frames=p["recent_size"],
        diversity=p["alpha"],
        blend=p["tau"],
        temperature=p["score_temperature"],
    )
    return Commit(base, p["recent_size"]) if p["commit_rule"] else base


def _rolling_sink(p: dict[str, Any]) -> Policy:
    base = RollingSink(window_frames=p["window_frames"])
    return Commit(base, p["window_frames"]) if p["commit_rule"] else base


RULES: dict[str, Callable[[dict[str, Any]], Policy]] = {
    "attention_sink": lambda p: NearSink(sink_frames=p["sink_frames"], window_frames=p["local_attn_size"]),
    "deep_sink": lambda p: DeepSink(sink_frames=p["sink_size"], window_frames=p["local_attn_size"]),
    "deep_forcing": lambda p: NotedDeep(
        window_frames=p["local_attn_size"],
        sink_frames=p["sink_size"],
        capacity_frames=p["pc_capacity_frames"],
        recent_frames=p["pc_window_frames"],
        most_uses=p["pc_topc_max_reuse"],
    ),
    "dummy_forcing": lambda p: NotedDummy(
        dummy_heads=p["num_dummy"], classify_chunk=p["ar_start"], local_chunks=p["local_context_length"]
    ),
    "infinity_rope": lambda p: InfinityRope(sink_frames=p["sink_size"], window_frames=p["local_attn_size"]),
    "relax_forcing": lambda p: NotedRelax(
        reservoir_frames=p["local_attn_size"],
        sink_frames=p["sink_frames"],
        memory_frames=p["hist_frames"],
        tail_frames=p["tail_frames"],
        candidates=p["num_hist_candidates"] if p["hist_position_idx"] == -2 else 0,
        redundancy=p["lambda_redundancy"],
        true_positions=p["contiguous_rope"],
    ),
    "longlive": _longlive,
    "sf_sink": _near_sink,
    "tethercache": _tether,
    "rolling_sink": _rolling_sink,
    "memrope": lambda p: NotedMean(
        sink_frames=p["sink_size"],
        window_frames=p["local_attn_size"],
        long_rate=p["ema_alpha_long"],
        short_rate=p["ema_alpha_short"],
        adaptive=p["ema_adaptive"],
    ),
    "reward": lambda p: NotedSink(
        sink_frames=p["sink_size"], window_frames=p["local_attn_size"], sink_share=p["compression_alpha"]
    ),
    "fademem": lambda p: NotedFade(slots=p["summary_slots"], warp=p["warp_beta"], span_power=p["span_gamma"]),
}
"""Name of a rule in golden data -> our policy with the authors' parameters."""
