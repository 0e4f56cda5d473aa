"""What a common past saves: streams from their beginnings, their past computed once, and that in passes of rows."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

from fkv.batch import plan
from fkv.batch.jobs import Job
from fkv.batch.jobs import Path as JobPath
from fkv.batch.memory import Memory, claims
from fkv.batch.run import Batch, Made
from fkv.models.base import VideoModel

from .drawing import drawn
from .report import lines

EVALUATED = ("full", "forcing-kv", "sliding-window")
COMPARED = (*EVALUATED, "longlive", "infinity-rope", "sliding-window:window_frames=21")
EVALUATION = 80  # chunks of a stream of 60 s
WITHIN = 3  # chunks in which an evaluation looks for a change
ENDINGS = 8
ROWS = 8
PROMPTS = ("a red ball over the sea", "a blue star in the city")
WAYS = {
    "alone": "each from its beginning",
    "once": "the past once",
    "rows": f"the past once, {ROWS} rows a pass",
}
MEANINGS = {
    "asked": "chunks of all streams",
    "chunks": "chunks computed",
    "seconds": "of generating them without decoding, of each repeat",
    "per_second": "chunks asked for per second, median over repeats",
    "kv_bytes_peak": "the most bytes of K and V in pages at once, those of streams that wait for a fork included",
}


def workloads(common: int, prompts: int) -> dict[str, list[Job]]:
    """Streams that have chunks in common, by what they are for.

    Args:
        common: Chunks before a change, and of a comparison.
        prompts: Prompts of the evaluation.

    Returns:
        The streams of an evaluation of policies, of one opening with several endings, and of a comparison of policies.
    """
    first, other = PROMPTS
    change = f"{common + 1}: {other}"
    number = count(1)
    evaluation = [
        Job(f"{next(number)}", f"{first} {prompt}", story, policy, 0, length)
        for prompt, policy in product(range(prompts), EVALUATED)
        for story, length in (("", EVALUATION), (change, common + WITHIN))
    ]
    endings = [Job(f"{next(number)}", first, f"{change} {each}", "full", 0, 2 * common) for each in range(ENDINGS)]
    comparison = [
        Job(f"{next(number)}", prompt, "", policy, seed, common)
        for policy, prompt, seed in product(COMPARED, PROMPTS, range(2))
    ]
    many = f"{prompts} prompts" if prompts > 1 else "1 prompt"
    return {
        f"evaluation: {len(EVALUATED)} policies, {many}, {EVALUATION} chunks and a change": evaluation,
        f"one opening of {common} chunks, {ENDINGS} endings of {common}": endings,
        f"comparison: {len(COMPARED)} policies, 2 prompts, 2 seeds, {common} chunks": comparison,
    }


def measure(
    model: VideoModel, context: int, repeats: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Generate streams of a common past in each of `WAYS`, in turns.

    Args:
        model: What generates.
        context: Latent frames of the past.
        repeats: How often; medians count.
        progress: Called after every chunk.

    Returns:
        `context`, and `rows` of streams, a way, and what `MEANINGS` says.
    """
    found = []
    for name, jobs in workloads(context // model.frames_per_chunk, 1).items():
        paths = [JobPath.of(job, model) for job in jobs]
        runs: dict[str, list[tuple[float, Batch]]] = {way: [] for way in WAYS}
        for turn in range(repeats):
            for way in list(WAYS) if turn % 2 == 0 else reversed(list(WAYS)):
                runs[way].append(_generate(model, paths, way, progress))
        found += [{"streams": name, "way": way, **_row(plan.asked(paths), runs[way])} for way in WAYS]
    return {"context": context, "rows": found}


def _generate(
    model: VideoModel, paths: Sequence[JobPath], way: str, progress: Callable[[], object]
) -> tuple[float, Batch]:
    """Generate streams. Returns the seconds, and the batch that has run."""
    nodes = [plan.Node(0, len(path), [path]) for path in paths] if way == "alone" else plan.grow(paths)
    roots = claims(nodes, Memory(model, share=False), sys.maxsize)
    batch = Batch(model, roots, ROWS if way == "rows" else 1, sys.maxsize, share=False)
    began = time.perf_counter()
    for each in batch.run():
        if isinstance(each, Made):
            progress()
        elif each.error:
            raise each.error
    return time.perf_counter() - began, batch


def _row(asked: int, runs: Sequence[tuple[float, Batch]]) -> dict[str, Any]:
    seconds = [spent for spent, _ in runs]
    _, last = runs[-1]
    return {
        "asked": asked,
        "chunks": last.computed,
        "seconds": seconds,
        "per_second": asked / statistics.median(seconds),
        "kv_bytes_peak": last.kv_bytes_peak,
    }


def chunks_of(model: VideoModel, context: int, repeats: int) -> int:
    """Chunks that `measure` generates."""
    counts = 0
    for jobs in workloads(context // model.frames_per_chunk, 1).values():
        paths = [JobPath.of(job, model) for job in jobs]
        counts += plan.asked(paths) + 2 * sum(node.computed for node in plan.grow(paths))
    return repeats * counts


def table(found: Mapping[str, Any]) -> list[str]:
    """Format what `measure` returns as lines for the terminal."""
    rows = [
        [f"{row['streams']}; {WAYS[row['way']]}", str(row["chunks"]), row["per_second"], row["kv_bytes_peak"] / 1e6]
        for row in found["rows"]
    ]
    head = ["streams that have a past in common", "chunks computed", "asked for per second", "MB of keys and values"]
    return lines(head, rows)


def figure(report: Mapping[str, Any], target: Path) -> None:
    """Draw chunks per second and memory of each way.

    Args:
        report: Of `fkv bench --pasts`.
        target: The file to write: .png, .svg or .pdf.
    """
    import pandas as pd
    import seaborn as sns

    found = pd.DataFrame(
        [
            {
                "streams": row["streams"].partition(":")[0].partition(" of ")[0],
                "way": WAYS[row["way"]],
                "chunks asked for per second": row["per_second"],
                "MB of keys and values at once": row["kv_bytes_peak"] / 1e6,
            }
            for row in report["pasts"]["rows"]
        ]
    )
    with drawn(report, target) as panels:
        for axes, value in zip(panels, found.columns[2:], strict=True):
            sns.barplot(found, x="streams", y=value, hue="way", ax=axes, legend=axes is panels[0])
            axes.set_xlabel("")
