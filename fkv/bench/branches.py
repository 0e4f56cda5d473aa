"""What several futures of one past take: bytes with neither, compression, sharing, both; passes together or alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fkv.cache import pinned_bytes
from fkv.models.base import VideoModel
from fkv.parallel.rows import step_counted

from . import rows
from .drawing import drawn
from .report import lines

POLICIES = ("full", "sliding-window:window_frames=21", "forcing-kv")
BRANCHES = 8
OWN_CHUNKS = rows.OWN_CHUNKS  # chunks that each branch generates for the bytes
MEANINGS = {
    "bytes": "K and V in pages while the newest chunks of all branches attend, each shared page once; by own chunks of "
    "each branch",
    "buffers": "bytes of the buffers that hold them, each shared one once and as a whole; less than bytes where all "
    "layers share the memory of a chunk",
    **rows.MEANINGS,
}


def measure(
    model: VideoModel, context: int, repeats: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Fork streams that have a past of some length, under each policy.

    Args:
        model: What generates.
        context: Latent frames of the past.
        repeats: How often passes are timed; medians count.
        progress: Called after every chunk.

    Returns:
        `bytes`, rows of a policy, how its branches have their past, and bytes after each own chunk; `together`, rows of
        a policy, a number of rows and chunks per second.
    """
    return {
        "context": context,
        "branches": BRANCHES,
        "bytes": [_bytes(model, name, context, share, progress) for name in POLICIES for share in (False, True)],
        "together": rows.measure(model, context, repeats, progress)["together"],
    }


def _bytes(model: VideoModel, name: str, context: int, share: bool, progress: Callable[[], object]) -> dict[str, Any]:
    streams = rows.forked(model, name, context, BRANCHES, share)
    pages, buffers = [], []
    for _ in range(OWN_CHUNKS):
        made, held = step_counted(streams)
        rows.check(made)
        pages.append(held)
        buffers.append(pinned_bytes(cache for stream in streams for cache in stream.caches))
        for _ in made:
            progress()
    return {"policy": name, "past": "shared" if share else "copied", "bytes": pages, "buffers": buffers}


def chunks_of(model: VideoModel, context: int, repeats: int) -> int:
    """Chunks that `measure` generates, but for the pasts."""
    return len(POLICIES) * 2 * BRANCHES * OWN_CHUNKS + rows.chunks_of(model, context, repeats)


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    worst = found["bytes"][0]["bytes"]
    held = [
        [f"{row['policy']}, {row['past']}", *(each / 1e6 for each in row["bytes"]), worst[-1] / row["bytes"][-1]]
        for row in found["bytes"]
    ]
    chunks = [f"after {chunk}" for chunk in range(1, len(worst) + 1)]
    return [
        f"MB of keys and values of {found['branches']} branches of a past of {found['context']} frames, by own chunks",
        *lines(["policy, past", *chunks, "times less"], held),
        *rows.table(found),
    ]


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw bytes of all branches by policy, copied and shared, and the gain of shared passes by rows.

    Args:
        report: Of `fkv bench --branches`.
        target: The file to write: .png, .svg or .pdf.
    """
    import pandas as pd
    import seaborn as sns

    found = report["branches"]
    held = pd.DataFrame([row | {"MB": row["bytes"][-1] / 1e6} for row in found["bytes"]])
    with drawn(report, target) as (memory, speed):
        sns.barplot(held, x="policy", y="MB", hue="past", ax=memory)
        for bars, hatch in zip(memory.containers, ("", "//"), strict=True):
            for bar in bars:
                bar.set_hatch(hatch)
            memory.bar_label(bars, fmt="%.1f")
        memory.legend(title="past")
        memory.set(
            xlabel="", ylabel=f"MB of keys and values, {found['branches']} branches of {found['context']} frames"
        )
        memory.tick_params(axis="x", labelsize=8)
        rows.draw(speed, found)
