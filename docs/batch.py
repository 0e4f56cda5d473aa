"""Write the last sections of docs/batch.md: `python -m docs.batch`.

Chunks that are computed of those asked for are counted here, from prefix trees; the rest is from the newest record of
`fkv bench --branches`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from fkv import policies
from fkv.analysis import evaluation_streams
from fkv.batch import plan
from fkv.batch.jobs import Job
from fkv.batch.jobs import Path as JobPath
from fkv.batch.shared import paths_of
from fkv.models import tiny
from fkv.models.base import VideoModel
from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
RECORDS = "*-branches.json"
HEADING = "## Counted"
EVALUATED = ("full", "forcing-kv", "sliding-window")
COMPARED = (*EVALUATED, "longlive", "infinity-rope", "sliding-window:window_frames=21")


def page(model: VideoModel) -> str:
    """Return the page as Markdown: what stands above the sections, and the sections.

    Args:
        model: For which chunks are counted.
    """
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    records = sorted(asset("benchmarks").glob(RECORDS))
    return "\n".join([text.rstrip(), "", *counted(model), *(measured(records[-1]) if records else [])])


def counted(model: VideoModel) -> list[str]:
    """Return the section on chunks that are computed once for several streams, line by line."""
    evaluation = [
        path
        for prompt in range(12)
        for path in evaluation_streams.paths_of(model, EVALUATED, EVALUATED, prompt, 0, 60).values()
    ]
    endings = [
        JobPath.of(Job(f"{number}", "a red ball over the sea", f"8: a blue star {number}", "full", 0, 14), model)
        for number in range(8)
    ]
    chosen = [policies.parse(name) for name in COMPARED]
    comparison = [
        path
        for prompt, seed in product(("a red ball over the sea", "a blue star in the city"), range(2))
        for path in paths_of(model, chosen, prompt, seed, 7)
    ]
    rows = [
        (f"evaluation: {len(EVALUATED)} policies, 12 prompts of 60 s, each also with a switch", evaluation),
        ("one opening of 7 chunks, 8 endings of 7", endings),
        (f"comparison: {len(COMPARED)} policies, 2 prompts, 2 seeds, 7 chunks", comparison),
    ]
    return [
        HEADING,
        "",
        "Chunks computed of those asked for, and where a stream may fork only once. The policies of the evaluation are",
        f"{_listed(EVALUATED)}, and those of the comparison are",
        f"{_listed(COMPARED)}.",
        "",
        "| streams | asked for | computed | saved | computed with one fork |",
        "|-|-|-|-|-|",
        *(_count(name, paths) for name, paths in rows),
        "",
    ]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(f'`{name}`' for name in names[:-1])} and `{names[-1]}`"


def _count(name: str, paths: Sequence[JobPath]) -> str:
    asked, tree = plan.asked(paths), plan.grow(paths)
    computed = sum(node.computed for node in tree)
    return f"| {name} | {asked} | {computed} | {1 - computed / asked:.1%} | {plan.computed_with_one_level(tree)} |"


def measured(file: Path) -> list[str]:
    """Return the section on a record, line by line."""
    report = json.loads(file.read_text(encoding="utf-8"))
    link = f"[record](../assets/benchmarks/{file.name})"
    where = f"{report['model']} in {report['precision']} on {report['hardware']['device']} ({link})."
    return ["## Measured", "", where, "", *tables(report["branches"])]


def tables(found: Mapping[str, Any]) -> list[str]:
    """Return what `fkv.bench.branches` measured as tables, line by line."""
    count = len(found["bytes"][0]["bytes"])
    most = found["bytes"][0]["bytes"][-1]
    held = [
        f"| {row['policy']} | {row['past']} | "
        + " | ".join(f"{each / 1e6:.1f}" for each in row["bytes"])
        + f" | {most / row['bytes'][-1]:.1f} |"
        for row in found["bytes"]
    ]
    speed = [
        f"| {row['policy']} | {row['rows']} | {row['together']:.2f} | {row['alone']:.2f} | {row['ratio']:.2f} |"
        for row in found["together"]
    ]
    return [
        f"MB of keys and values of {found['branches']} branches that have {found['context']} latent frames in common,",
        "while their newest chunks attend, by chunks that each has of its own.",
        "",
        "| policy | past | " + " | ".join(map(str, range(1, count + 1))) + " | times less |",
        "|-" * (count + 3) + "|",
        *held,
        "",
        "Chunks per second of several rows; the ratio is the median over rounds in which both took turns.",
        "",
        "| policy | rows | one pass for all | a pass for each | ratio |",
        "|-|-|-|-|-|",
        *speed,
        "",
    ]


if __name__ == "__main__":
    PAGE.write_text(page(tiny.load()), encoding="utf-8")
