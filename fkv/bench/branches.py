"""What several futures of one past take: bytes with neither, compression, sharing, both; passes together or alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkv import policies
from fkv.cache import pinned_bytes
from fkv.models.base import VideoModel
from fkv.parallel.rows import step_counted, step_rows
from fkv.sampler import BranchNoise
from fkv.stream import Chunk, Stream

from .report import lines
from .streams import prepare

POLICIES = ("full", "sliding-window:window_frames=21", "forcing-kv")
BRANCHES = 8
OWN_CHUNKS = 4  # chunks that each branch generates for the bytes
ROWS = (1, 2, 4, 8)
SPEED = ("full", "forcing-kv")
MEANINGS = {
    "bytes": "K and V in pages while the newest chunks of all branches attend, each shared page once; by own chunks of "
    "each branch",
    "buffers": "bytes of the buffers that hold them, each shared one once and as a whole",
    "together": "chunks per second of all rows, median over repeats: one pass for all rows, or a pass for each",
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
        "together": [_speed(model, name, rows, context, repeats, progress) for name in SPEED for rows in ROWS],
    }


def _forked(model: VideoModel, name: str, context: int, count: int, share: bool) -> list[Stream]:
    """Branches of one past that draw other noise each, the stream itself among them."""
    trunk = prepare(model, policies.parse(name), context, decode=False)
    trunk.step()
    noises = [BranchNoise(0, (0,) * trunk.index + (branch,) * OWN_CHUNKS) for branch in range(1, count)]
    return [trunk, *(trunk.fork(noise, share=share) for noise in noises)]


def _bytes(model: VideoModel, name: str, context: int, share: bool, progress: Callable[[], object]) -> dict[str, Any]:
    streams = _forked(model, name, context, BRANCHES, share)
    pages, buffers = [], []
    for _ in range(OWN_CHUNKS):
        made, held = step_counted(streams)
        _check(made)
        pages.append(held)
        buffers.append(pinned_bytes(cache for stream in streams for cache in stream.caches))
        for _ in made:
            progress()
    return {"policy": name, "past": "shared" if share else "copied", "bytes": pages, "buffers": buffers}


def _speed(
    model: VideoModel, name: str, rows: int, context: int, repeats: int, progress: Callable[[], object]
) -> dict[str, Any]:
    together, alone = (_forked(model, name, context, rows, share=False) for _ in range(2))
    ways: dict[str, Callable[[], list[Chunk | Exception]]] = {
        "together": lambda: step_rows(together),
        "alone": lambda: [stream.step() for stream in alone],
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats):
        for way in list(ways) if turn % 2 == 0 else reversed(list(ways)):
            began = time.perf_counter()
            made = ways[way]()
            spent[way].append(time.perf_counter() - began)  # chunks wait for the device
            _check(made)
            for _ in made:
                progress()
    rates = {way: rows / statistics.median(seconds) for way, seconds in spent.items()}
    ratios = [slow / fast for slow, fast in zip(spent["alone"], spent["together"], strict=True)]
    return {"policy": name, "rows": rows, **rates, "ratio": statistics.median(ratios)}


def _check(made: Sequence[Chunk | Exception]) -> None:
    for each in made:
        if isinstance(each, Exception):
            raise each


def chunks_of(context: int, frames_per_chunk: int, repeats: int) -> int:
    """Chunks that `measure` generates, but for the pasts."""
    return len(POLICIES) * 2 * BRANCHES * OWN_CHUNKS + len(SPEED) * sum(ROWS) * 2 * repeats


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    worst = found["bytes"][0]["bytes"]
    held = [
        [f"{row['policy']}, {row['past']}", *(each / 1e6 for each in row["bytes"]), worst[-1] / row["bytes"][-1]]
        for row in found["bytes"]
    ]
    chunks = [f"after {chunk}" for chunk in range(1, len(worst) + 1)]
    speed = [
        [row["policy"], str(row["rows"]), row["together"], row["alone"], row["ratio"]] for row in found["together"]
    ]
    return [
        f"MB of keys and values of {found['branches']} branches of a past of {found['context']} frames, by own chunks",
        *lines(["policy, past", *chunks, "times less"], held),
        "chunks per second of several rows",
        *lines(["policy", "rows", "one pass for all", "a pass for each", "ratio"], speed),
    ]


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw bytes of all branches by policy, copied and shared, and the gain of shared passes by rows.

    Args:
        report: Of `fkv bench --branches`.
        target: The file to write: .png, .svg or .pdf.
    """
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    import seaborn as sns
    from matplotlib import pyplot as plt

    found = report["branches"]
    held = pd.DataFrame([row | {"MB": row["bytes"][-1] / 1e6} for row in found["bytes"]])
    with sns.axes_style("whitegrid"):
        canvas, (memory, speed) = plt.subplots(1, 2, figsize=(11, 4.6))
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
        for name, style in zip(SPEED, ("o--", "s-"), strict=True):
            rows = [row for row in found["together"] if row["policy"] == name]
            speed.plot([str(row["rows"]) for row in rows], [row["ratio"] for row in rows], style, label=name)
        speed.axhline(1, color="grey", linewidth=0.8)
        speed.set(xlabel="rows", ylabel="one pass for all, times as fast as a pass for each", ylim=(0, None))
        speed.legend()
        canvas.suptitle(f"{report['model']}, {report['hardware']['device']}, {report['date'][:10]}", fontsize=9)
        canvas.tight_layout()
        canvas.savefig(target, dpi=160)
        plt.close(canvas)
