"""Write the last section of docs/batch.md, from the newest record of `fkv bench --branches`: `python -m docs.batch`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
RECORDS = "*-branches.json"
HEADING = "## Measured"


def page() -> str:
    """Return the page as Markdown: what stands above the section, and the section where there is a record."""
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    records = sorted(asset("benchmarks").glob(RECORDS))
    return "\n".join([text.rstrip(), "", *(measured(records[-1]) if records else [])])


def measured(file: Path) -> list[str]:
    """Return the section on a record, line by line."""
    report = json.loads(file.read_text(encoding="utf-8"))
    link = f"[record](../assets/benchmarks/{file.name})"
    where = f"{report['model']} in {report['precision']} on {report['hardware']['device']} ({link})."
    return [HEADING, "", where, "", *tables(report["branches"])]


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
    PAGE.write_text(page(), encoding="utf-8")
