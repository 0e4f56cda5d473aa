"""Golden data of published cache rules: replay runs recorded from the code of their authors, and compare them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

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

from .cache import KVCache
from .pages import HeadGroup
from .parity import Golden, ParityError
from .policies import ChunkState, Policy
from .stream import Chunk, Stream

Tensors = dict[str, Tensor]
Report = dict[str, Any]

EDITED = -2  # stands in recorded facts for a frame whose content was changed, and for its position
SCORES = {"scores": 2e-3, "mass": 1e-5, "grab_scores": 2e-5, "final_": 1e-4}  # absolute tolerances


# Policies that note what they decide.


@dataclass(frozen=True)
class _NotedDummy(DummyForcing):
    rows: list[Tensor] = field(init=False, default_factory=list)
    noted: dict[str, np.ndarray] = field(init=False, default_factory=dict)

    def sampled_rows(self, layer: int, count: int, tokens: int) -> Tensor:
        return self.rows[layer]

    def classes(self, mass: np.ndarray) -> np.ndarray:
        self.noted["mass"] = mass.transpose(1, 0, 2)
        self.noted["classes"] = super().classes(mass)
        return self.noted["classes"]


@dataclass(frozen=True)
class _NotedRelax(RelaxForcing):
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
class _NotedDeep(DeepForcing):
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
class _NotedTether(TetherCache):
    noted: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(init=False, default_factory=dict)

    def scores(self, state: ChunkState, layer: int, name: str, query: Tensor, candidates: np.ndarray) -> np.ndarray:
        scores = super().scores(state, layer, name, query, candidates)
        self.noted[state.chunk, layer] = candidates, scores
        return scores


@dataclass(frozen=True)
class _NotedFade(FadeMem):
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
class _NotedMean(MemRope):
    noted: list[list[np.ndarray]] = field(init=False, default_factory=list)

    def edit(self, state: ChunkState) -> None:
        self.noted.append(_contents(state.cache, self.memory))
        super().edit(state)


@dataclass(frozen=True)
class _NotedSink(EmaSink):
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
    base = _NotedTether(
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
    "deep_forcing": lambda p: _NotedDeep(
        window_frames=p["local_attn_size"],
        sink_frames=p["sink_size"],
        capacity_frames=p["pc_capacity_frames"],
        recent_frames=p["pc_window_frames"],
        most_uses=p["pc_topc_max_reuse"],
    ),
    "dummy_forcing": lambda p: _NotedDummy(
        dummy_heads=p["num_dummy"], classify_chunk=p["ar_start"], local_chunks=p["local_context_length"]
    ),
    "infinity_rope": lambda p: InfinityRope(sink_frames=p["sink_size"], window_frames=p["local_attn_size"]),
    "relax_forcing": lambda p: _NotedRelax(
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
    "memrope": lambda p: _NotedMean(
        sink_frames=p["sink_size"],
        window_frames=p["local_attn_size"],
        long_rate=p["ema_alpha_long"],
        short_rate=p["ema_alpha_short"],
        adaptive=p["ema_adaptive"],
    ),
    "reward": lambda p: _NotedSink(
        sink_frames=p["sink_size"], window_frames=p["local_attn_size"], sink_share=p["compression_alpha"]
    ),
    "fademem": lambda p: _NotedFade(slots=p["summary_slots"], warp=p["warp_beta"], span_power=p["span_gamma"]),
}
"""Name of a rule in golden data -> our policy with the authors' parameters."""


# What a run reads.


@dataclass
class _ReadFacts:
    """A probe that notes which frames the first layer reads, and at which positions."""

    seen: dict[tuple[int, str], list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]] = field(default_factory=dict)
    _pass: tuple[int, str] = (0, "")

    def begin(self, chunk: int, frames: tuple[int, ...], name: str) -> bool:
        self._pass = chunk, name
        self.seen[self._pass] = []
        return True

    def record(
        self, layer: int, group: HeadGroup, heads: Sequence[int], query: Tensor, keys: Tensor, cache: KVCache
    ) -> None:
        if layer == 0:
            pages = cache.pages_read(group, heads[0])
            frames = np.where(pages.edited, EDITED, pages.frame)
            positions = np.where(pages.edited, EDITED, pages.position)
            whole = pages.segment == 0
            self.seen[self._pass].append((tuple(heads), frames[whole], positions[whole]))


def _pairs(frames: Iterable[int], positions: Iterable[int]) -> Counter[tuple[int, int]]:
    return Counter(zip(map(int, frames), map(int, positions), strict=True))


def _facts_b(facts: _ReadFacts, expected: Tensors, passes: Sequence[str]) -> Report:
    """Compare with `read_frames` and `read_positions`, [chunks, passes, keys], -1 where there is none."""
    frames, positions = expected["read_frames"].numpy(), expected["read_positions"].numpy()
    wrong = []
    for chunk, step in np.ndindex(frames.shape[:2]):
        there = frames[chunk, step] != -1
        wanted = _pairs(frames[chunk, step][there], positions[chunk, step][there])
        ((_, ours, at),) = facts.seen[chunk, passes[step]]
        if _pairs(ours, at) != wanted:
            wrong.append(f"chunk {chunk + 1}, {passes[step]}")
    return {"reads_equal": {"ok": not wrong, "wrong": wrong}}


def _facts_a(facts: _ReadFacts, recorded: Sequence[dict[str, Any]], passes: Sequence[str], policy: Policy) -> Report:
    """Compare with `facts.json`: `[frame, position]` of every key frame per chunk, in the first pass and the last."""
    wrong = []
    for chunk, fact in enumerate(recorded):
        for name in (passes[0], passes[-1]):
            for heads, frames, positions in facts.seen[chunk, name]:
                wanted = fact.get("keys")
                if wanted is None:
                    kind = int(policy.noted["classes"][0, heads[0]])  # type: ignore[attr-defined]
                    wanted = fact[("sink_heads", "neighbour_heads", "dummy_heads")[kind]]
                ours, theirs = _pairs(frames, positions), Counter(map(tuple, wanted))
                if "note" in fact:  # single tokens of other frames come on top
                    ours = Counter({pair: count for pair, count in ours.items() if pair in theirs})
                if ours != theirs:
                    wrong.append(f"chunk {chunk + 1}, {name}")
    return {"reads_equal": {"ok": not wrong, "wrong": wrong}}


# What a run decides.


def _close(ours: np.ndarray, theirs: np.ndarray, atol: float) -> Report:
    worst = float(np.nanmax(np.abs(np.asarray(ours, float) - np.asarray(theirs, float)), initial=0))
    return {"max": worst, "ok": np.shape(ours) == np.shape(theirs) and worst <= atol}


def _equal(ours: Any, theirs: Any) -> Report:
    return {"ok": bool(np.array_equal(ours, theirs))}


def _decisions(policy: Policy, expected: Tensors) -> Report:
    """Compare what a rule chose, scored and stored with the record."""
    base = policy.base if isinstance(policy, Commit) else policy
    wanted = {name: tensor.numpy() for name, tensor in expected.items()}
    if isinstance(base, _NotedDummy):
        return {
            "classes_equal": _equal(base.noted["classes"], wanted["classes"]),
            "mass": _close(base.noted["mass"], wanted["mass"][:, :2], SCORES["mass"]),
        }
    if isinstance(base, _NotedRelax) and "scored_chunks" in wanted:
        return _relax_decisions(base, wanted)
    if isinstance(base, _NotedDeep):
        return _deep_decisions(base, wanted)
    if isinstance(base, _NotedTether):
        return _tether_decisions(base, wanted)
    if isinstance(base, _NotedFade):
        return _fade_decisions(base, wanted)
    if isinstance(base, (_NotedMean, _NotedSink)):
        name = "final_memory" if isinstance(base, _NotedMean) else "final_sink"
        pairs = zip("kv", base.noted[-1], strict=True)
        return {f"{name}_{what}": _close(ours, wanted[f"{name}_{what}"], SCORES["final_"]) for what, ours in pairs}
    return {}


def _relax_decisions(policy: _NotedRelax, wanted: dict[str, np.ndarray]) -> Report:
    chunks = wanted["scored_chunks"].tolist()
    noted = [policy.noted[chunk] for chunk in chunks]

    def padded(rows: Iterable[np.ndarray], like: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(like.shape, fill)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    scores = padded((each[1] for each in noted), wanted["scores"], np.nan)
    return {
        "candidates_equal": _equal(padded((each[0] for each in noted), wanted["candidates"], -1), wanted["candidates"]),
        "scores": _close(scores, wanted["scores"], SCORES["scores"]),
        "selected_equal": _equal(padded((each[2] for each in noted), wanted["selected"], -1), wanted["selected"]),
    }


def _deep_decisions(policy: _NotedDeep, wanted: dict[str, np.ndarray]) -> Report:
    chunks = wanted["prune_chunks"].tolist()
    layers = 1 + max((layer for _, layer in policy.noted), default=-1)
    report: Report = {"prune_chunks_equal": {"ok": sorted({chunk for chunk, _ in policy.noted}) == chunks}}
    if not report["prune_chunks_equal"]["ok"]:
        return report
    ours = {
        (c, what): np.stack([policy.noted[c, layer][what] for layer in range(layers)])
        for c in chunks
        for what in ("candidates", "scores", "selected")
    }
    report["candidates_equal"] = {
        "ok": all(_equal(ours[c, "candidates"], wanted[f"candidates_c{c}"])["ok"] for c in chunks)
    }
    report["selected_equal"] = {"ok": all(_equal(ours[c, "selected"], wanted[f"selected_c{c}"])["ok"] for c in chunks)}
    if report["candidates_equal"]["ok"]:
        worst = max(float(np.abs(ours[c, "scores"] - wanted[f"scores_c{c}"]).max()) for c in chunks)
        report["scores"] = {"max": worst, "ok": worst <= SCORES["scores"]}
    return report


def _tether_decisions(policy: _NotedTether, wanted: dict[str, np.ndarray]) -> Report:
    if "grab_scores" not in wanted:
        return {}
    layers = wanted["grab_scores"].shape[1]
    chunks = sorted({chunk for chunk, _ in policy.noted})
    noted = [[policy.noted[chunk, layer] for layer in range(layers)] for chunk in chunks]
    candidates = np.array([[each[0] for each in row] for row in noted])
    scores = np.array([[each[1] for each in row] for row in noted])
    kept = np.array([[each[0][policy.chosen(each[1])] for each in row] for row in noted])
    return {
        "grab_candidates_equal": _equal(candidates, wanted["grab_candidates"]),
        "grab_scores": _close(scores, wanted["grab_scores"], SCORES["grab_scores"]),
        "grab_kept_equal": _equal(kept, wanted["grab_kept_frames"]),
    }


def _fade_decisions(policy: _NotedFade, wanted: dict[str, np.ndarray]) -> Report:
    report: Report = {}
    for name, value in (("memory_centers", "centre"), ("memory_spans", "span")):
        ours = np.full(wanted[name][:, 0].shape, -1)
        for chunk, entries in policy.noted:
            ours[chunk, : len(entries)] = [getattr(entry, value) for entry in entries]
        theirs = wanted[name][:, 0]
        report[f"{name}_equal"] = _equal(np.where(theirs < 0, -1, ours), np.where(theirs < 0, -1, theirs))
    return report


# A run.


def check(golden: Golden, names: Sequence[str] = ()) -> dict[str, Report]:
    """Replay runs of a folder of golden rules.

    Args:
        golden: The folder.
        names: Of the runs; by default all.

    Returns:
        Per run the largest difference of the latents, whether reads and decisions are equal, and `ok` for each.

    Raises:
        ParityError: for a rule that is not known.
    """
    facts_file = golden.meta.get("facts_file")
    facts = golden.json(facts_file) if facts_file else {}
    runs = golden.meta["rules"]
    return {name: _run(golden, runs[name], facts.get(name)) for name in names or runs}


def _run(golden: Golden, run: dict[str, Any], recorded: Sequence[dict[str, Any]] | None) -> Report:
    if run["rule"] not in RULES:
        raise ParityError(f"{golden.folder}: rule {run['rule']!r} is not known; known are {', '.join(RULES)}")
    expected = golden.expected(run["file"])
    policy = RULES[run["rule"]](run["params"])
    if isinstance(policy, _NotedDummy):
        policy.rows.extend(expected["sampled_rows"])
    stream = golden.stream(policy)
    facts = _ReadFacts()
    chunks = [_step(golden, run, stream, chunk, facts) for chunk in range(golden.meta["chunks"])]
    passes = [*(f"step {i}" for i in range(len(golden.meta["sampler"]["sigmas"]))), "context"]
    report = {"latents": _latents(chunks, expected["latents"], golden.meta["suggested_atol"]["latents"])}
    if "read_frames" in expected:
        report |= _facts_b(facts, expected, passes)
    elif recorded is not None:
        report |= _facts_a(facts, recorded, passes, policy)
    return report | _decisions(policy, expected)


def _step(golden: Golden, run: dict[str, Any], stream: Stream, chunk: int, facts: _ReadFacts) -> Chunk:
    """Generate a chunk after what the record says happened before it."""
    prompts = run.get("prompt_of_chunk", ())
    if chunk and prompts and prompts[chunk] != prompts[chunk - 1]:
        stream.set_text(golden.inputs[prompts[chunk]].float())
    if chunk in run.get("flush_before_chunks", ()):
        stream.flush()
    if chunk in run.get("cut_chunks", ()):
        stream.cut()
    count = golden.meta["frames_per_chunk"]
    for frame in run["params"].get("switch_frame_indices") or ():
        if chunk * count >= frame > (chunk - 1) * count:
            stream.set_text(golden.inputs["prompt_embeds_2"].float(), recache=True)
    return stream.step(facts)


def _latents(chunks: Sequence[Chunk], expected: Tensor, atol: float) -> Report:
    worst = [
        float((chunk.latents[0].cpu() - theirs).abs().max()) for chunk, theirs in zip(chunks, expected, strict=True)
    ]
    return {"per_chunk": worst, "max": max(worst), "ok": max(worst) <= atol}
