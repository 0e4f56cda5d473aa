"""Write the last sections of docs/batch.md: `python -m docs.batch`.

Chunks that are computed of those asked for are counted here, from prefix trees; the rest is from the newest records of
`fkv bench` with `--branches`, `--pasts` and `--rows`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkv.batch import plan
from fkv.batch.jobs import Path as JobPath
from fkv.bench import pasts
from fkv.models import tiny
from fkv.models.base import VideoModel
from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
RECORDS = ("branches", "pasts", "rows", "rows-wan-1.3b")
HEADING = "## Counted"
COMMON = 7  # chunks before a change
PROMPTS = 12


def page(model: VideoModel) -> str:
    """Return the page as Markdown: what stands above the sections, and the sections.

    Args:
        model: For which chunks are counted.
    """
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    return "\n".join([text.rstrip(), "", *counted(model), *measured()])


def counted(model: VideoModel) -> list[str]:
    """Return the section on chunks that are computed once for several streams, line by line."""
    rows = [(name, [JobPath.of(job, model) for job in jobs]) for name, jobs in pasts.workloads(COMMON, PROMPTS).items()]
    return [
        HEADING,
        "",
        "`python -m docs.batch` writes this section and the next one.",
        "",
        "Chunks computed of those asked for, and where a stream may fork only once. The policies of the evaluation are",
        f"{_listed(pasts.EVALUATED)}, and those of the comparison are",
        f"{_listed(pasts.COMPARED)}.",
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


def measured() -> list[str]:
    """Return the section on the newest record of each kind, line by line."""
    folder = asset("benchmarks")
    newest = [files[-1] for kind in RECORDS if (files := sorted(folder.glob(f"*-{kind}.json")))]
    return ["## Measured", "", *(line for file in newest for line in tables(file))]


def tables(file: Path) -> list[str]:
    """Return a record as tables, line by line."""
    report = json.loads(file.read_text(encoding="utf-8"))
    name = next(name for name in TABLES if name in report)
    layers = "" if report["model"] == "tiny" else f", {report['layers']} layers"
    link = f"[record](../assets/benchmarks/{file.name})"
    picture = file.with_suffix(".png")
    drawn = [f"![The same record as a figure](../assets/benchmarks/{picture.name})", ""] if picture.exists() else []
    rounds = f"{report['repeats']} round{'s' * (report['repeats'] > 1)}"
    return [
        f"{report['model']}{layers} in {report['precision']} on {report['hardware']['device']}, {rounds}, load before "
        f"{report['load_before']:.1f} ({link}).",
        "",
        *TABLES[name](report[name]),
        "",
        *drawn,
    ]


def _branches(found: Mapping[str, Any]) -> list[str]:
    count = len(found["bytes"][0]["bytes"])
    most = found["bytes"][0]["bytes"][-1]
    held = [
        f"| {row['policy']} | {row['past']} | "
        + " | ".join(f"{each / 1e6:.1f}" for each in row["bytes"])
        + f" | {most / row['bytes'][-1]:.1f} |"
        for row in found["bytes"]
    ]
    return [
        f"MB of keys and values of {found['branches']} branches that have {found['context']} latent frames in common,",
        "while their newest chunks attend, by chunks that each has of its own.",
        "",
        "| policy | past | " + " | ".join(map(str, range(1, count + 1))) + " | times less |",
        "|-" * (count + 3) + "|",
        *held,
        "",
        *_rows(found),
    ]


def _rows(found: Mapping[str, Any]) -> list[str]:
    return [
        "Chunks per second of several rows; the ratio is the median over rounds in which both took turns.",
        "",
        "| policy | rows | one pass for all | a pass for each | ratio |",
        "|-|-|-|-|-|",
        *(
            f"| {row['policy']} | {row['rows']} | {row['together']:.2f} | {row['alone']:.2f} | {row['ratio']:.2f} |"
            for row in found["together"]
        ),
    ]


def _pasts(found: Mapping[str, Any]) -> list[str]:
    return [
        "Streams generated each from its beginning, with their past computed once, and that in passes of several rows;",
        "keys and values at once, those of streams that wait for a fork included.",
        "",
        "| streams | way | computed | asked for per second | MB |",
        "|-|-|-|-|-|",
        *(
            f"| {row['streams']} | {pasts.WAYS[row['way']]} | {row['chunks']} of {row['asked']} | "
            f"{row['per_second']:.3g} | {row['kv_bytes_peak'] / 1e6:.1f} |"
            for row in found["rows"]
        ),
    ]


TABLES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {"branches": _branches, "pasts": _pasts, "rows": _rows}


if __name__ == "__main__":
    PAGE.write_text(page(tiny.load()), encoding="utf-8")
