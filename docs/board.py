"""Write docs/board.md from the results in assets/board: `python -m docs.board`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from fkv.analysis.evaluation_table import FEWEST
from fkv.board import columns, papers, table
from fkv.board.result import Result, load_folder, of_seeds
from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
INTRODUCTION = f"""\
# The board: cache rules on one protocol

Which rule is best, and at which cost? `fkv board` runs cache rules ([policies](policies.md)) on the same model, prompts
and noise, and says of each what it reads, holds and takes beside what its videos measure. The Board tab of the studio
shows the same results, with sliders for memory, speed and frames.

This page is written from [assets/board](../assets/board) by `python -m docs.board`.

```
python -m fkv board run  assets/board/tiny-small.toml --out runs/small        # goes on from what is finished
python -m fkv board run  assets/board/tiny-60s.toml --out runs/board          # all rules at full size
python -m fkv board show runs/small --by clip_consistency --under-gb 12 --fps 16 --table board.md --csv board.csv
python -m fkv board add  runs/small/results/*.json                            # checks them, puts them on a board
python -m fkv board run  assets/board/tiny-small.toml --out runs/small --videos all
python -m fkv board vbench runs/small                                         # the commands of VBench-Long
```

`run` takes `--device`, `--precision`, `--workers N` and `--ray ADDRESS`. An idle core generates about three seconds of
video per second: `tiny-6s` (5 rules) takes some minutes, `tiny-12s` (all rules) some 20 for each of two seeds, and
`tiny-60s` (all rules, 12 prompts, 4 seeds) 10 to 12 hours.

## Protocol

A spec is a file of TOML: model and hash of its weights, training horizon, prompts, seeds, seconds, and rules on two
tracks; for real models also `setup`, such as `setup = {{{{ resolution = "480p", decoder = "small" }}}}`.
**As released**: rules with the parameters of their authors. **Same budget**: the largest setting of each rule whose
denoising passes read at most 7, 9, 12 or 21 latent frames, the chunk's included, on average over heads; a rule that
cannot read so few is left out. Noise follows from seed, chunk and step, so all rules of a prompt and seed get the
same, and differences from `full` are paired. Intervals are bootstrapped over prompts ({table.RESAMPLES:,} resamples)
where there are {FEWEST} or more.

`run` finishes all prompts of one seed before it begins the next seed. It keeps a record per video and goes on from
these, also when the spec has more rules than before. `results` has one JSON file per rule, and `videos.csv` a line per
video; before the run ends, both cover only the prompts and seeds that every rule has finished, and `show` says how many
that are. `show --seeds 0` measures the videos of that seed alone; costs, recall and identity stay those of all seeds.
The lines of several machines, one after another in `records.jsonl`, are one board, as long as weights, precision,
prompts, seconds and features are the same; `--videos none` generates no video again merely to save it.

A rule's file and `--csv` also say at which positions it reads, how far the oldest frame read lies back, what it was
calibrated on, head groups and pages, load of the machine, devices and versions. To add a rule to a board, run its spec
with the rule listed, `fkv board add` the file, run `python -m docs.board`, and open a pull request: tests check every
file of assets/board, and that this page shows them. Results of one board must have the same weights, prompts, seeds and
length, or they are refused.

## Measures

| measure | better | |
|-|-|-|
{{measures}}

They need no weights from elsewhere. Likeness is that of colours on a grid of 10 by 6 fields; `--features
facebook/dinov2-small` or another vision model of the Hub takes its place. Adherence is read by the oracle of the toy
world; `renders` are videos that the world draws itself, with the same measures: what a perfect model would get.
`--recall` adds what returns after it left the picture, for models of the memory world: in streams of its own, of which
it takes as many prompts and seeds as the board has.

**VBench-Long** is a package of its own with weights of its own. With `--videos all` the videos of each rule lie in
one folder in its custom-input layout; `fkv board vbench DIR` writes `vbench.sh` with the exact commands, and, when
they have run, `fkv board vbench DIR --read` puts the scores of every video into the results.

## Results
"""
NONE = "No board has been recorded yet.\n"
FEW = "> {count} prompts are too few for intervals: this shows what a board holds, and says nothing about the rules.\n"


def page() -> str:
    """Return the page as Markdown."""
    measures = "\n".join(
        f"| {each.title} | {BETTER[each.better]} | {each.help} |" for each in columns.MEASURES.values()
    )
    results = load_folder(asset("board"))
    boards = [section(list(group)) for _, group in groupby(results, lambda result: result.protocol.name)]
    return "\n".join([INTRODUCTION.format(measures=measures), *(boards or [NONE]), quoted()])


BETTER = {"high": "high", "low": "low", "zero": "near 0", "none": ""}


def section(results: Sequence[Result]) -> str:
    """Return the tables of a board."""
    protocol = results[0].protocol
    count = len(protocol.prompts)
    rows = table.rows(results)
    parts = [
        f"### {protocol.name}\n",
        f"{protocol.model} ({protocol.checkpoint}, {protocol.precision}), trained on {protocol.training_horizon}; "
        f"{count} prompts, seeds {', '.join(map(str, protocol.seeds))}, {protocol.seconds:g} s; likeness by "
        f"{protocol.features}; {', '.join(sorted({row['device'] for row in rows if row['device']}))}.\n",
        *([FEW.format(count=count)] if count < FEWEST else []),
    ]
    parts += table.by_track(sorted(rows, key=lambda row: (row["frames"] or 0, row["policy"])))
    return "\n".join([*parts, table.NOTES, *repeated(results)])


def repeated(results: Sequence[Result]) -> list[str]:
    """Return what becomes of the intervals of a board when other seeds repeat it; nothing where there is one seed.

    Identity is left out: it compares the seeds of a board with each other.
    """
    seeds = results[0].protocol.seeds
    halves = [seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]]
    if len(seeds) < 2 or len(results[0].protocol.prompts) < FEWEST:
        return []
    one, two = (table.rows([of_seeds(result, half) for result in results]) for half in halves)
    rows = []
    for name, measure in columns.MEASURES.items():
        if name != "identity" and (found := table.overlap(one, two, name)):
            rows.append(f"| {measure.title} | {sum(found)} of {len(found)} |")
    names = " and ".join(", ".join(map(str, half)) for half in halves)
    return [
        f"The same protocol twice, with seeds {names}: rules whose two intervals overlap. Identity is not measured "
        "twice: it compares each seed with the others of the board.\n",
        "\n".join(["| measure | rules |", "|-|-|", *rows]) + "\n",
    ]


def quoted() -> str:
    """Return the figures of papers."""
    parts = [
        "## Figures of papers\n",
        "As their authors state them, not measured with this library; models, prompts and machines differ.\n",
    ]
    for each in papers.tables():
        rows = [f"| {figure.method} | `{figure.rule}` | {figure.value} |" for figure in each.figures]
        parts += [f"### {each.title}\n", f"{each.protocol}. From: {each.source}.\n"]
        parts += ["\n".join(["| method | its rule here | figure |", "|-|-|-|", *rows]) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
