"""Write docs/recall.md and its figure from the records in assets/benchmarks.

python -m docs.recall                # the page and the figure
python -m docs.recall --siblings     # first measure how far streams part from their siblings
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm import tqdm

from fkv.analysis.figures import Recall
from fkv.analysis.probes import Kind
from fkv.analysis.recall import summary
from fkv.analysis.siblings import BRANCH, siblings
from fkv.commands.output import emit
from fkv.models import registry
from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
RECORD = asset("benchmarks") / "recall.json"
SIBLINGS = RECORD.with_name("siblings.json")
FIGURE = RECORD.with_suffix(".png")
COMMAND = (
    "python -m fkv eval --recall --policy all,-recompute --prompts 12 --away 20 --out runs/recall "
    "--json assets/benchmarks/recall.json"
)
REMEMBERS = 0.9  # recall that `full` must exceed for the world to be a test of memory
FORGETS = 0.6  # recall below which the worst policy must fall
PARTED = 25.0  # dB below which siblings must lie
PAIR = ("forcing-kv", "dummy-forcing")  # policies whose intervals must lie apart
INTRODUCTION = """\
# What a cache remembers

A needle in a haystack for streaming video: something is shown, leaves the picture, and returns. The model
`tiny-memory` streams a small world whose renderer knows the truth of every pixel, so what came back can be read off the
frames and compared ([how the world works](../assets/tiny-memory/README.md)). Four kinds of probes, all on held-out
prompts, all opening on something else, so that no attention sink holds a picture of the item:

- **panorama**: the camera turns to a panel with a sign, lamps and a window, turns away, and comes back;
- **thing**: a thing of open colour and shape leaves, and the prompt asks for "the thing from before";
- **hidden**: a thing goes behind a wall and comes out again;
- **roaming**: a thing leaves the picture at the side and returns.

*Recall* is the share of items that come back right, among those that the stream showed right before they left; *shown*
is the share of those. *Held* is the share of the latent frames that showed the item which the cache still holds, over
heads and layers, at the return. *Chance* is what guessing gives. Brackets are 95 % intervals, bootstrapped over
prompts.

This page is written from [assets/benchmarks/recall.json](../assets/benchmarks/recall.json) by `python -m docs.recall`.
"""


def read() -> list[dict[str, Any]]:
    """The streams of the record."""
    found: list[dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8"))["records"]
    return found


def page() -> str:
    """Return the page as Markdown."""
    records = read()
    total = summary(records, ("policy",)).sort_values("recall", ascending=False).set_index("policy")
    kinds = summary(records, ("policy", "kind")).pivot(index="policy", columns="kind", values="recall")
    return "\n".join([INTRODUCTION, _table(total, kinds), _made(records, total), _figure(), _verdict(total)])


def _table(total: pd.DataFrame, kinds: pd.DataFrame) -> str:
    """One row per policy, the best recall first."""
    heads = ["policy", "recall", *get_args(Kind), "shown", "held", "peak KV, MB"]
    rows = [_row(heads), _row(["-"] * len(heads))]
    for name, row in total.iterrows():
        cells = [f"`{name}`", f"{_percent(row['recall'])} ({_percent(row['low'])} to {_percent(row['high'])})"]
        cells += [_percent(kinds.loc[name, kind]) for kind in get_args(Kind)]
        cells += [_percent(row["shown"]), _percent(row["cached"]), f"{row['kv_bytes_peak'] / 1e6:.1f}"]
        rows.append(_row(cells))
    return "\n".join(rows) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return "-" if pd.isna(share) else f"{100 * share:.0f} %"


def _made(records: Sequence[Mapping[str, Any]], total: pd.DataFrame) -> str:
    """What was streamed, and how to stream it again."""
    away = ", ".join(f"{seconds:g}" for seconds in sorted({record["away"] for record in records}))
    prompts, seeds = (len({record[name] for record in records}) for name in ("prompt", "seed"))
    chance = total["chance"].mean()
    return (
        f"`{records[0]['model']}` in {records[0]['precision']}, {prompts} prompts per kind, seeds: {seeds}, away for "
        f"{away} s; chance is {_percent(chance)}. Every row follows from\nthe same prompts and noise. At full size:\n\n"
        f"```\n{COMMAND}\n```\n"
    )


def _figure() -> str:
    return f"![Recall against bytes of keys and values, one point a policy](../assets/benchmarks/{FIGURE.name})\n"


def _verdict(total: pd.DataFrame) -> str:
    """Whether the world tests memory: what was asked of it beforehand, beside what was measured."""
    full, worst = total.loc["full"], total.iloc[-1]
    first, second = (total.loc[name] for name in PAIR)
    apart = first["low"] > second["high"] or second["low"] > first["high"]
    rows = [
        _row(["asked beforehand", "measured", ""]),
        _row(["-"] * 3),
        _row([f"`full` above {_percent(REMEMBERS)}", _percent(full["recall"]), _met(full["recall"] > REMEMBERS)]),
        _row(
            [
                f"the worst policy below {_percent(FORGETS)}",
                f"`{worst.name}`: {_percent(worst['recall'])}",
                _met(worst["recall"] < FORGETS),
            ]
        ),
        _row(
            [
                f"intervals of `{PAIR[0]}` and `{PAIR[1]}` apart",
                " and ".join(f"{_percent(row['low'])} to {_percent(row['high'])}" for row in (first, second)),
                _met(apart),
            ]
        ),
        _row(_siblings()),
    ]
    return "\n".join(["## Is it a test of memory?\n", *rows]) + "\n"


def _siblings() -> list[str]:
    """The row of how far two streams part that differ in noise from a chunk on."""
    found = [record["psnr"] for record in json.loads(SIBLINGS.read_text(encoding="utf-8"))["siblings"]]
    low, median, high = np.percentile(found, (25, 50, 75))
    return [
        f"siblings branched at chunk {BRANCH} below {PARTED:g} dB",
        f"median {median:.1f} dB, middle half {low:.1f} to {high:.1f}",
        _met(bool(median < PARTED)),
    ]


def _met(holds: bool) -> str:
    return "met" if holds else "not met"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siblings", action="store_true", help=f"measure siblings anew, into {SIBLINGS.name}")
    if parser.parse_args().siblings:
        made = siblings(registry.load("tiny-memory"), prompts=12, seeds=4)
        emit({"siblings": list(tqdm(made, total=48, unit="pair"))}, SIBLINGS)
    Recall(summary(read(), ("policy",))).matplotlib().savefig(FIGURE, dpi=160)
    PAGE.write_text(page(), encoding="utf-8")
