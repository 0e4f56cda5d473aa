"""Measure searches, and write the table of docs/search.md and its figure.

    python -m docs.search --model tiny --record runs/search/searches.jsonl      (hours; continues where it was ended)
    python -m docs.search --read runs/search/searches.jsonl                     (the table and the figure)

The record that the page shows is assets/benchmarks/searches.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fkv.analysis import searches
from fkv.analysis.evaluation_table import FEWEST
from fkv.analysis.figures.style import SERIES
from fkv.commands.model_options import add_model, load_model
from fkv.records import Record, read_records
from fkv.resources import asset
from fkv.search.strategies import STRATEGIES

PAGE = Path(__file__).with_suffix(".md")
RECORD = asset("benchmarks") / "searches.jsonl"
FIGURE = RECORD.with_suffix(".png")
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"  # in the page, around what is written here
COLOURS = {name: SERIES[i % len(SERIES)] for i, name in enumerate(STRATEGIES)}
MARKS = dict(zip(STRATEGIES, "osD^vP", strict=True))

SHORT = """
Tasks named *short* have fewer chunks. They are for a model whose noise decides the opening alone: after it, futures
differ in wording, re-cache, moment, policy and steps, not in noise (`TASKS` in `analysis/searches.py`).
"""

MEASURED = """\
## What searches find

`{model}` in {precisions}, held-out prompts, seeds {seeds}; {budget}.
Rewards are those of the plain streams that repeat what was found, 0 to 1; brackets are 95 %
bootstrap intervals over prompts, from {fewest} on. *Over best-of* is the difference on the same prompts and seeds: a
strategy whose interval holds 0, or lies below it, does not beat best-of-N here. *Decision* is how long a strategy
thinks, beside one chunk; on a machine that does other work it says little.
{short}
{table}
"""

BUDGET = "every strategy may take the passes of as many plain\nstreams as its width"
EARLIER = """\
recorded with an earlier version, whose best-of-N
followed one noise after the first choice and whose budgets differed by strategy: *over best-of* is no finding"""

CURVES = f"""
![Reward against passes](../assets/benchmarks/{FIGURE.name})
"""

SAVED = """
What REBASE holds over what ETS holds (the paper says 1.8 times, at equal accuracy, for texts): unique bytes of K and V,
and chunks, mean over all depths.

{saved}
"""

GUARDED = """
A guard against the colour and the time of day that the prompt names, by the oracle that also counts the violations:

{guarded}
"""


def check_alike(records: Sequence[Record]) -> None:
    """Raise ValueError for records of several weights, or of one task in several precisions, which have no one mean."""
    weights = {(record["model"], record["checkpoint"]) for record in records}
    runs = {(record["task"], record["precision"]) for record in records}
    if len(weights) > 1 or len(runs) > len({task for task, _ in runs}):
        raise ValueError(
            f"the records are of {len(weights)} models or weights and {len({each for _, each in runs})} precisions; "
            "keep one of each for every task in a file"
        )


def section(records: Sequence[Record]) -> str:
    """Return what the page says of records, as Markdown. Raises ValueError as `check_alike` does."""
    check_alike(records)
    first = records[0]
    saved, guarded = searches.bytes_saved(records), searches.guarded(records)
    searched = [record for record in records if record["strategy"] in STRATEGIES]
    text = MEASURED.format(
        model=first["model"],
        precisions=_precisions(records),
        seeds=", ".join(map(str, sorted({record["seed"] for record in records}))),
        budget=BUDGET if all("passes_allowed" in record for record in searched) else EARLIER,
        fewest=FEWEST,
        short=SHORT if any(record["task"].startswith(searches.SHORT) for record in records) else "",
        table=_searches(searches.table(records)),
    )
    text += CURVES if has_curves(records) else ""
    text += SAVED.format(saved=_saved(saved)) if len(saved) else ""
    return text + (GUARDED.format(guarded=_guarded(guarded)) if len(guarded) else "")


def _precisions(records: Sequence[Record]) -> str:
    """The precision of all records, or each with the tasks that were run in it."""
    tasks: dict[str, dict[str, None]] = {}
    for record in records:
        tasks.setdefault(record["precision"], {})[record["task"]] = None
    if len(tasks) == 1:
        return records[0]["precision"]
    return ", ".join(f"{precision} ({', '.join(named)})" for precision, named in tasks.items())


def has_curves(records: Sequence[Record]) -> bool:
    """Whether strategies were measured with several numbers of passes."""
    return len({record["width"] for record in records if record["strategy"] in STRATEGIES}) > 1


def _rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["-"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_interval(row: pd.Series, name: str, look: str = "{:.3f}") -> str:
    """A mean with its interval, where there are prompts enough for one."""
    mean, low, high = (look.format(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{mean} [{low}, {high}]" if np.isfinite(row[f"{name}_low"]) else mean


def _searches(table: pd.DataFrame) -> str:
    headings = (
        "task,strategy,width,prompts,passes,reward,over best-of,reward calls per chunk,unique KV (MB),decision".split(
            ","
        )
    )
    rows = []
    for _, row in table[table["policy"] == searches.POLICY].iterrows():
        is_search = row["strategy"] != searches.PLAIN
        compared = is_search and row["strategy"] != "best-of" and pd.notna(row.get("above"))
        cells = [row["task"], row["strategy"], str(row["width"]), str(row["prompts"]), f"{row['passes']:.0f}"]
        cells.append(_with_interval(row, "reward"))
        cells.append(_with_interval(row, "above", "{:+.3f}") if compared else "")
        if is_search:
            cells += [f"{row['calls_per_chunk']:.1f}", f"{row['kv_bytes_mean'] / 1e6:.1f}"]
            cells.append(f"{row['strategy_share']:.2%} of a chunk")
        rows.append([*cells, *[""] * (len(headings) - len(cells))])
    return _rows(headings, rows)


def _saved(table: pd.DataFrame) -> str:
    rows = [
        [
            row["task"],
            f"`{row['policy']}`",
            str(row["width"]),
            _with_interval(row, "ratio", "{:.2f}"),
            _with_interval(row, "nodes", "{:.2f}"),
            _with_interval(row, "above", "{:+.3f}"),
        ]
        for _, row in table.iterrows()
    ]
    return _rows(
        ["task", "policy", "width", "bytes of REBASE / ETS", "chunks of REBASE / ETS", "reward of ETS over REBASE"],
        rows,
    )


def _guarded(table: pd.DataFrame) -> str:
    rows = [
        [
            "guarded" if row["stream"] == searches.GUARD else "plain",
            str(row["streams"]),
            f"{row['violations']:.1f}",
            f"{row['checks']:.2f}" if row["checks"] else "",
            str(row["stopped"]),
        ]
        for _, row in table.iterrows()
    ]
    return _rows(["stream", "streams", "violations per 100 chunks", "checks per emitted chunk", "stopped"], rows)


def draw(records: Sequence[Record]) -> Figure:
    """Draw reward against passes, task by task; a dashed line is the plain stream."""
    table = searches.table(records)
    table = table[table["policy"] == searches.POLICY]
    tasks = list(dict.fromkeys(table["task"]))
    figure = Figure(figsize=(4.2 * len(tasks), 4), layout="constrained")
    for axis, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        rows = table[table["task"] == task]
        for name, group in rows[rows["strategy"] != searches.PLAIN].groupby("strategy", sort=False):
            spread = [group["reward"] - group["reward_low"], group["reward_high"] - group["reward"]]
            spread = [part.where(np.isfinite(part), 0) for part in spread]  # of too few prompts there is no interval
            axis.errorbar(
                group["passes"], group["reward"], spread, marker=MARKS[name], color=COLOURS[name], capsize=3, label=name
            )
        for _, plain in rows[rows["strategy"] == searches.PLAIN].iterrows():
            axis.axhline(plain["reward"], linestyle="--", color="grey")
        axis.set(title=task, xlabel="passes per video", ylabel="reward")
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def page(records: Sequence[Record]) -> str:
    """Return the page with what records say of searches."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{section(records)}{END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, or write the page and the figure from a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--record", type=Path, metavar="FILE", help="measure, and append to this file")
    parser.add_argument("--read", type=Path, default=RECORD, metavar="FILE", help="write the page from this record")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument(
        "--tasks", nargs="+", default=[*searches.FULL, searches.GUARD], choices=[*searches.TASKS, searches.GUARD]
    )
    args = parser.parse_args(argv)
    if args.record:
        todo = searches.jobs(args.prompts, args.seeds, args.widths, args.strategies, args.tasks)
        records = searches.study(load_model(args), args.record, todo)
        print(section(records))
        return
    records = read_records(args.read)
    if not records:
        parser.error(f"{args.read} holds no record yet; measure with --record {args.read}")
    try:
        PAGE.write_text(page(records), encoding="utf-8")
    except ValueError as error:
        parser.error(f"{args.read}: {error}")
    if has_curves(records):
        draw(records).savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
