"""What one cache for all steps saves: seconds by chunk of no cache, a growing one and a queue; bytes by steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from fkv import policies
from fkv.comparison import interleave
from fkv.models.base import VideoModel
from fkv.stream import Stream
from fkv.world import PROMPT

from .drawing import drawn
from .report import lines

POLICIES = ("recompute", "full", "ca2-vdm")
STEPS = (4, 8, 16, 50)
MEANINGS = {
    "cumulative_s": "seconds of denoising, context pass and rebuilds up to each chunk, median over repeats",
    "bytes": "keys and values at the last chunk under full: one cache for all denoising steps, and one for each step",
}


def measure(
    model: VideoModel, context: int, repeats: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Generate streams up to a context length under each policy, in turn.

    Args:
        model: What generates.
        context: Latent frames that the last chunk attends to under `full`, its own included.
        repeats: How often; medians count.
        progress: Called after every chunk.

    Returns:
        `cumulative_s`, policy -> seconds up to each chunk; `kv_bytes`, policy -> bytes at the last chunk; `bytes`, rows
        of steps with the bytes of a shared cache and of a cache for each step.
    """
    chunks = context // model.frames_per_chunk
    spent: dict[str, list[list[float]]] = {name: [[] for _ in range(chunks)] for name in POLICIES}
    held = {}
    for _ in range(repeats):
        streams = [Stream(model, policies.make(name), PROMPT, decode=False) for name in POLICIES]
        for which, chunk in interleave(streams, chunks):
            spent[POLICIES[which]][chunk.index].append(chunk.timings.generate)
            held[POLICIES[which]] = chunk.kv_bytes
            progress()
    return {
        "context": context,
        "cumulative_s": {
            name: list(accumulate(statistics.median(seconds) for seconds in by_chunk))
            for name, by_chunk in spent.items()
        },
        "kv_bytes": held,
        "bytes": [{"steps": steps, "shared": held["full"], "per_step": steps * held["full"]} for steps in STEPS],
    }


def chunks_of(model: VideoModel, context: int, repeats: int) -> int:
    """Chunks that `measure` generates."""
    return context // model.frames_per_chunk * len(POLICIES) * repeats


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    chunks = len(next(iter(found["cumulative_s"].values())))
    shown = sorted({1, chunks // 4, chunks // 2, 3 * chunks // 4, chunks} - {0})
    rows = [[name, *(seconds[chunk - 1] for chunk in shown)] for name, seconds in found["cumulative_s"].items()]
    memory = [[str(row["steps"]), row["shared"] / 1e6, row["per_step"] / 1e6] for row in found["bytes"]]
    return [
        "seconds up to a chunk",
        *lines(["policy", *map(str, shown)], rows),
        f"MB of keys and values at {found['context']} frames of context under full",
        *lines(["denoising steps", "one cache for all steps", "a cache for each step"], memory),
    ]


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw cumulative seconds over chunks, and bytes over denoising steps.

    Args:
        report: Of `fkv bench --ca2`.
        target: The file to write: .png, .svg or .pdf.
    """
    found = report["ca2"]
    title = "measured here, not the authors' figure: {model}, {device}, {date}"
    with drawn(report, target, title=title) as (time, memory):
        for (name, seconds), style in zip(found["cumulative_s"].items(), ("o--", "s-", "^-."), strict=True):
            time.plot(range(1, len(seconds) + 1), seconds, style, label=name, markersize=4)
        time.set_xlabel("chunk")
        time.set_ylabel("seconds up to this chunk")
        time.legend()
        steps = [str(row["steps"]) for row in found["bytes"]]
        for key, label, style in (
            ("shared", "one cache for all steps", "o-"),
            ("per_step", "a cache for each step", "s--"),
        ):
            memory.plot(steps, [row[key] / 1e6 for row in found["bytes"]], style, label=label)
        memory.set_xlabel("denoising steps")
        memory.set_ylabel("MB of keys and values")
        memory.set_yscale("log")
        memory.legend()
