"""How fast several rows of a pass are: one pass for all, or a pass for each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkv import policies
from fkv.models.base import VideoModel
from fkv.parallel.rows import step_rows
from fkv.sampler import BranchNoise
from fkv.stream import Chunk, Stream

from .drawing import drawn
from .report import lines
from .streams import prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = (1, 2, 4, 8)
POLICIES = ("full", "forcing-kv")
OWN_CHUNKS = 4  # chunks whose noise is each branch's own
MEANINGS = {
    "together": "chunks per second of all rows, median over repeats: one pass for all rows, or a pass for each",
}


def measure(
    model: VideoModel, context: int, repeats: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Step streams of a common past as rows of one pass, and one by one, in turns.

    Args:
        model: What generates.
        context: Latent frames of the past.
        repeats: How often passes are timed; medians count.
        progress: Called after every chunk.

    Returns:
        `context` and `together`, rows of a policy, a number of rows and chunks per second.
    """
    found = [_speed(model, name, rows, context, repeats, progress) for name in POLICIES for rows in ROWS]
    return {"context": context, "together": found}


def chunks_of(model: VideoModel, context: int, repeats: int) -> int:
    """Chunks that `measure` generates, but for the pasts."""
    return len(POLICIES) * sum(ROWS) * 2 * repeats


def forked(model: VideoModel, name: str, context: int, count: int, share: bool) -> list[Stream]:
    """Branches of one past under a policy that draw other noise each, the stream itself among them."""
    trunk = prepare(model, policies.parse(name), context, decode=False)
    trunk.step()
    noises = [BranchNoise(0, (0,) * trunk.index + (branch,) * OWN_CHUNKS) for branch in range(1, count)]
    return [trunk, *(trunk.fork(noise, share=share) for noise in noises)]


def _speed(
    model: VideoModel, name: str, rows: int, context: int, repeats: int, progress: Callable[[], object]
) -> dict[str, Any]:
    together, alone = (forked(model, name, context, rows, share=False) for _ in range(2))
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
            check(made)
            for _ in made:
                progress()
    rates = {way: rows / statistics.median(seconds) for way, seconds in spent.items()}
    ratios = [slow / fast for slow, fast in zip(spent["alone"], spent["together"], strict=True)]
    return {"policy": name, "rows": rows, **rates, "ratio": statistics.median(ratios)}


def check(made: Sequence[Chunk | Exception]) -> None:
    """Raise what a row failed with."""
    for each in made:
        if isinstance(each, Exception):
            raise each


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    speed = [
        [row["policy"], str(row["rows"]), row["together"], row["alone"], row["ratio"]] for row in found["together"]
    ]
    return [
        "chunks per second of several rows",
        *lines(["policy", "rows", "one pass for all", "a pass for each", "ratio"], speed),
    ]


def draw(axes: Axes, found: Mapping[str, Any]) -> None:
    """Draw the gain of shared passes by rows."""
    names = dict.fromkeys(row["policy"] for row in found["together"])
    for name, style in zip(names, ("o--", "s-"), strict=True):
        rows = [row for row in found["together"] if row["policy"] == name]
        axes.plot([str(row["rows"]) for row in rows], [row["ratio"] for row in rows], style, label=name)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="rows", ylabel="one pass for all, times as fast as a pass for each", ylim=(0, None))
    axes.legend()


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw a report of `fkv bench --rows`.

    Args:
        report: The report.
        target: The file to write: .png, .svg or .pdf.
    """
    with drawn(report, target, 1, (5.5, 4.6)) as axes:
        draw(axes, report["rows"])
