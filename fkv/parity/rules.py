"""Runs recorded from the code of the authors of cache rules: latents, what each pass reads, what the rule decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from fkv.cache import HeadGroup, KVCache
from fkv.policies import Policy
from fkv.policies.commit import Commit
from fkv.stream import Chunk, Stream

from .golden import Golden, ParityError
from .measures import Report, close, equal, latents, within
from .noted import RULES, NotedDeep, NotedDummy, NotedFade, NotedMean, NotedRelax, NotedSink, NotedTether

Tensors = dict[str, Tensor]

EDITED = -2  # stands in recorded facts for a frame whose content was changed, and for its position
SCORES = {"scores": 2e-3, "mass": 1e-5, "grab_scores": 2e-5, "final_": 1e-4}  # absolute tolerances


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
            pages = cache.reading.pages(group, heads[0])
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


def _decisions(policy: Policy, expected: Tensors) -> Report:
    """Compare what a rule chose, scored and stored with the record."""
    base = policy.base if isinstance(policy, Commit) else policy
    wanted = {name: tensor.numpy() for name, tensor in expected.items()}
    if isinstance(base, NotedDummy):
        return {
            "classes_equal": equal(base.noted["classes"], wanted["classes"]),
            "mass": close(base.noted["mass"], wanted["mass"][:, :2], SCORES["mass"]),
        }
    if isinstance(base, NotedRelax) and "scored_chunks" in wanted:
        return _relax_decisions(base, wanted)
    if isinstance(base, NotedDeep):
        return _deep_decisions(base, wanted)
    if isinstance(base, NotedTether):
        return _tether_decisions(base, wanted)
    if isinstance(base, NotedFade):
        return _fade_decisions(base, wanted)
    if isinstance(base, (NotedMean, NotedSink)):
        name = "final_memory" if isinstance(base, NotedMean) else "final_sink"
        pairs = zip("kv", base.noted[-1], strict=True)
        return {f"{name}_{what}": close(ours, wanted[f"{name}_{what}"], SCORES["final_"]) for what, ours in pairs}
    return {}


def _relax_decisions(policy: NotedRelax, wanted: dict[str, np.ndarray]) -> Report:
    chunks = wanted["scored_chunks"].tolist()
    noted = [policy.noted[chunk] for chunk in chunks]

    def padded(rows: Iterable[np.ndarray], like: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(like.shape, fill)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    scores = padded((each[1] for each in noted), wanted["scores"], np.nan)
    alone = (wanted["candidates"] >= 0).sum(1, keepdims=True) == 1  # then there is nothing to choose, so no score here
    theirs = np.where(alone, np.nan, wanted["scores"])
    return {
        "candidates_equal": equal(padded((each[0] for each in noted), wanted["candidates"], -1), wanted["candidates"]),
        "scores": close(scores, theirs, SCORES["scores"]),
        "selected_equal": equal(padded((each[2] for each in noted), wanted["selected"], -1), wanted["selected"]),
    }


def _deep_decisions(policy: NotedDeep, wanted: dict[str, np.ndarray]) -> Report:
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
        "ok": all(equal(ours[c, "candidates"], wanted[f"candidates_c{c}"])["ok"] for c in chunks)
    }
    report["selected_equal"] = {"ok": all(equal(ours[c, "selected"], wanted[f"selected_c{c}"])["ok"] for c in chunks)}
    if report["candidates_equal"]["ok"]:
        differences = [np.abs(ours[c, "scores"] - wanted[f"scores_c{c}"]).max() for c in chunks]
        report["scores"] = within(float(np.max(differences)), SCORES["scores"])
    return report


def _tether_decisions(policy: NotedTether, wanted: dict[str, np.ndarray]) -> Report:
    if "grab_scores" not in wanted:
        return {}
    layers = wanted["grab_scores"].shape[1]
    chunks = sorted({chunk for chunk, _ in policy.noted})
    noted = [[policy.noted[chunk, layer] for layer in range(layers)] for chunk in chunks]
    candidates = np.array([[each[0] for each in row] for row in noted])
    scores = np.array([[each[1] for each in row] for row in noted])
    kept = np.array([[each[0][policy.chosen(each[1])] for each in row] for row in noted])
    return {
        "grab_candidates_equal": equal(candidates, wanted["grab_candidates"]),
        "grab_scores": close(scores, wanted["grab_scores"], SCORES["grab_scores"]),
        "grab_kept_equal": equal(kept, wanted["grab_kept_frames"]),
    }


def _fade_decisions(policy: NotedFade, wanted: dict[str, np.ndarray]) -> Report:
    report: Report = {}
    for name, value in (("memory_centers", "centre"), ("memory_spans", "span")):
        ours = np.full(wanted[name][:, 0].shape, -1)
        for chunk, entries in policy.noted:
            ours[chunk, : len(entries)] = [getattr(entry, value) for entry in entries]
        theirs = wanted[name][:, 0]
        report[f"{name}_equal"] = equal(np.where(theirs < 0, -1, ours), np.where(theirs < 0, -1, theirs))
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
    if isinstance(policy, NotedDummy):
        policy.rows.extend(expected["sampled_rows"])
    stream = golden.stream(policy)
    facts = _ReadFacts()
    chunks = [_step(golden, run, stream, chunk, facts) for chunk in range(golden.meta["chunks"])]
    passes = [*(f"step {i}" for i in range(len(golden.meta["sampler"]["sigmas"]))), "context"]
    report = {"latents": latents(chunks, expected["latents"], golden.meta["suggested_atol"]["latents"])}
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
