"""Runs recorded from Forcing-KV's official code: full attention, a rolling window, the hybrid cache, its variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fkv.policies import ChunkState
from fkv.policies.forcing_kv import ForcingKV
from fkv.policies.full import Full
from fkv.policies.sliding_window import SlidingWindow
from fkv.probe import FrameMassProbe, PassMass, head_scores
from fkv.roles import ROLES, from_json
from fkv.stream import Chunk

from .golden import Golden
from .measures import Report, latents, steps, within


def checks(golden: Golden) -> dict[str, Callable[[], dict[str, Report]]]:
    """What can be replayed, by name: each returns its part of the report."""
    atol, chunks = golden.meta["suggested_atol"], golden.meta["chunks"]

    def full() -> dict[str, Report]:
        report, attention = _check_full(golden, atol, chunks)
        return {"full": report, "attention": attention}

    def rolling() -> dict[str, Report]:
        run = golden.meta["runs"]["rolling"]
        stream = golden.stream(SlidingWindow(sink_frames=run["sink_size"], window_frames=run["local_attn_size"]))
        made = [stream.step() for _ in range(chunks)]
        return {"rolling": {"latents": latents(made, golden.expected(run["file"])["latents"], atol["latents"])}}

    return {
        "full": full,
        "rolling": rolling,
        "forcing_kv": lambda: {"forcing_kv": _check_forcing_kv(golden, atol, chunks)},
    }


def _check_full(golden: Golden, atol: dict[str, float], chunks: int) -> tuple[Report, Report]:
    """Full attention, and the attention masses recorded under it."""
    expected = golden.expected(golden.meta["runs"]["full"]["file"])
    attention = golden.meta.get("attention")
    stream = golden.stream(Full())
    made: list[Chunk] = []
    masses: list[PassMass] = []
    for index in range(chunks):
        probe = FrameMassProbe(queries=None, passes=None) if attention and index == attention["chunk"] else None
        made.append(stream.step(probe))
        if probe:
            masses = probe.take()
    report = {
        "latents": latents(made, expected["latents"], atol["latents"]),
        **steps(made, expected, atol["latents"]),
    }
    sigma = golden.meta["sampler"]["sigmas"][0]
    flow = (golden.inputs["noise"][0, : golden.meta["frames_per_chunk"]].float() - made[0].x0_steps[0][0].cpu()) / sigma
    report["flow_chunk0_step0"] = within(float((flow - expected["flow_chunk0_step0"]).abs().max()), atol["latents"])
    if "latents_cap21_last" in expected:
        capped = golden.stream(SlidingWindow(sink_frames=0, window_frames=21))
        last = [capped.step() for _ in range(chunks)][-1]
        difference = float((last.latents[0].cpu() - expected["latents_cap21_last"]).abs().max())
        report["latents_cap21_last"] = within(difference, atol["latents"])
    if not attention:
        return report, {}
    wanted = golden.expected(attention["file"])
    mass = np.stack([record.mass for record in masses])
    scores = head_scores(mass, attention["last_k"], attention["skip_first_k"])
    static = scores >= attention["threshold"]
    return report, {
        "frame_mass": within(float(np.abs(mass - wanted["frame_mass"].numpy()).max()), atol["frame_mass"]),
        "head_score": within(float(np.abs(scores - wanted["head_score"].numpy()).max()), atol["head_score"]),
        "roles_equal": {"ok": bool((static == wanted["is_static"].numpy().astype(bool)).all())},
    }


def _check_forcing_kv(golden: Golden, atol: dict[str, float], chunks: int) -> Report:
    """The hybrid cache: latents, similarity scores, kept segments and key lengths, then its variants."""
    run = golden.meta["runs"]["forcing_kv"]
    expected = golden.expected(run["file"])
    heads = from_json(golden.json(run["heads_file"]))
    policy = _NotedForcingKV(**asdict(_forcing_kv(run)))
    scores = policy.noted
    stream = golden.stream(policy, heads)
    made = [stream.step() for _ in range(chunks)]
    scored = run["scored_chunks"]
    differences = [
        float(np.abs(scores[c] - expected["patch_scores"][i].numpy()).max())
        for i, c in enumerate(scored)
        if c in scores
    ]
    lengths = expected["kv_tokens"].tolist()
    tokens_equal = all(
        chunk.kv_tokens[role if layer else "all"] == length
        for chunk, recorded in zip(made, lengths, strict=True)
        for layer, pair in enumerate(recorded)
        for role, length in zip(ROLES, pair, strict=True)
        if layer == 0 or heads.heads(role)[layer]
    )
    report = {
        "latents": latents(made, expected["latents"], atol["latents"]),
        **steps(made, expected, atol["latents"]),
        "patch_scores": within(float(np.max(differences, initial=0)), atol["patch_scores"]),
        "scored_chunks_equal": {"ok": sorted(scores) == scored},
        "kept_segments_equal": {
            "ok": all(_kept(made[c], policy) == expected["kept_segments"][i].tolist() for i, c in enumerate(scored))
        },
        "kv_tokens_equal": {"ok": tokens_equal},
    }
    for name, variant in run.get("variants", {}).items():
        if variant["latents"] not in expected:
            continue
        other = _forcing_kv(run, variant["params"])
        stream = golden.stream(other, heads)
        made = [stream.step() for _ in range(chunks)]
        report[name] = {"latents": latents(made, expected[variant["latents"]], atol["latents"])}
        wanted = variant.get("kept_segments", {})
        report[name]["kept_segments_equal"] = {
            "ok": all(_kept(made[int(c)], other) == kept for c, kept in wanted.items())
        }
    return report


def _forcing_kv(run: dict[str, Any], params: dict[str, Any] | None = None) -> ForcingKV:
    p = run | (params or {})
    return ForcingKV(
        sink_frames=p["sink_size"],
        anchor_frames=p["spatial_context_length"],
        dynamic_anchor_frames=p["temporal_context_length"],
        dynamic_frames=p["dynamic_context_length"] if p["dynamic_temporal_enabled"] else 0,
        segments_per_frame=p["num_frame_patch"],
        retention=p["sim_retention_ratio"],
        start_chunk=p["ar_start"],
    )


def _kept(chunk: Chunk, policy: ForcingKV) -> list[int]:
    """Kept segments as the golden data numbers them: candidate frame * segments + segment."""
    pages = chunk.pages["dynamic"]
    mask = chunk.kept["dynamic"]
    first = chunk.frames[-1] - policy.dynamic_anchor_frames + 1 - len(chunk.frames)
    flat = (pages.frame[mask] - first) * policy.segments_per_frame + pages.segment[mask]
    return sorted(flat[(flat >= 0) & (flat < len(chunk.frames) * policy.segments_per_frame)].tolist())


@dataclass(frozen=True)
class _NotedForcingKV(ForcingKV):
    """Forcing-KV that records its similarity scores, chunk -> scores."""

    noted: dict[int, np.ndarray] = field(init=False, compare=False, default_factory=dict)

    def scores(self, state: ChunkState) -> np.ndarray | None:
        scores = super().scores(state)
        if scores is not None:
            self.noted[state.chunk] = scores
        return scores
