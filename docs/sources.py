"""Write docs/sources.md and its figures from the records in assets/benchmarks: `python -m docs.sources`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fkv.bench import ca2, selection
from fkv.training.demands import sentence

PAGE = Path(__file__).with_suffix(".md")
RECORDS = Path(__file__).parents[1] / "assets" / "benchmarks"
COMMANDS = {
    "ca2": "python -m fkv bench --ca2 --context 84 --repeats 5 --json assets/benchmarks/sources-ca2.json",
    "selection": "python -m fkv bench --selection --context 84 --repeats 8 "
    "--json assets/benchmarks/sources-selection.json",
    "equal-bytes": "python -m fkv eval --policy window-kv,sliding-window,forcing-kv,dummy-forcing --bytes 12,25,50 "
    "--prompts 12 --seconds 21 --out runs/equal-bytes --json assets/benchmarks/sources-equal-bytes.json",
    "recall": "python -m fkv eval --recall --policy window-kv,sliding-window,forcing-kv,dummy-forcing --bytes 12,25,50 "
    "--prompts 12 --seconds 21 --away 3,10 --out runs/recall --json assets/benchmarks/sources-recall.json",
    "demands": "python -m fkv.training.demands --prompts 48 --seeds 8 --seconds 20 "
    "--json assets/benchmarks/sources-demands.json",
}
"""What makes the record of each section, at full size."""
INTRODUCTION = """\
# Three cache systems of the sources

Ca2-VDM, MPCache and WindowKV each make a claim about what a cache keeps or reads that other [policies](policies.md)
do not. Here are their rules as policies, and their claims measured on the tiny model. Figures of their papers were
measured elsewhere, on other models, and are not repeated here.

This page is written from the records in [assets/benchmarks](../assets/benchmarks/README.md) by `python -m
docs.sources`. The records of `fkv bench` hold their command and machine.
"""
CA2 = """\
## Ca2-VDM: one cache for all denoising steps

`ca2-vdm` is a queue of clean frames. Keys are rotated (RoPE) from where they are stored to their rank in the queue, so
positions stay below 27 in a stream of any length. `context_noise`, from 0 to 0.1 and under every policy, noises what
the context pass reads; the authors do so against drift, and it can be changed while a stream runs. The claim is
that seconds per chunk grow with the history when it is computed again (`recompute`) or attended to (`full`), and stay
flat with a queue. The two opponents of the paper are the policies `recompute` and `per-step`. With 4 denoising steps
a cache for each step takes 4 times the bytes, not the 20 times of a model with many.
"""
MPCACHE = """\
## MPCache: pages that are held and not read

`mpcache` judges every page once, when it is one chunk old, and then lets each head read a part of what is held: by
digests of keys (the largest and smallest value in each dimension), frames first and pages of these frames second. It
tests whether old pages are needed rarely rather than never. Two differences from the authors: a page is judged by the
queries of one chunk, not by those at the end of a prompt, and a choice also serves all denoising steps of a chunk,
which is new here. One query becomes the mean query of each strip of the picture; the linear form is exact for a mean.

- **What it can gain.** A choice takes time, so it pays in long contexts alone. A policy that holds as little as it
  reads is faster still, as nothing has to be chosen; what choosing can gain over it is nearness to `full`.
- **The threshold** of 5 equal shares was chosen on two prompts of the tiny model, to drop about as many pages as the
  authors report for a language model, 60 %. How many it drops depends on the prompt and on the length.
- **Private inference is out of scope.** The authors hide queries and keys from the machine that computes, by secret
  sharing. Nothing is hidden here, and attention of thousands of queries is out of reach of such protocols. What can
  be checked is how many operations of the kinds that they count as costly each rule needs; these are counted from the
  page tables.
"""
WINDOWS = """\
## WindowKV: fewer pages in later layers

`window-kv` gives groups of neighbouring layers one page table each. Budgets fall from the first group to the last,
and windows of neighbouring pages stay by the attention mass of the context pass in the first layer of their group.
Differences from the authors: the rule runs after every chunk instead of once after the prompt, and a dropped window
stays away.

Policies that hold equal bytes, as near as their settings allow. Half of the heads of `dummy-forcing` keep a single
frame whatever the others keep, so it cannot use every share.
"""
DEMANDS = """\
The authors let a classifier of prompts choose between `max` (a few pages matter) and `average` (many matter a
little). Here a prompt's label is the strategy that stays nearer to the frames of `full`, over 8 seeds or more. A
classifier would ship if it beat the majority class on prompts that it was not fitted to; without one, `strategy` is
a parameter.
"""


def record(name: str) -> dict[str, Any]:
    """The record of a section."""
    found: dict[str, Any] = json.loads((RECORDS / f"sources-{name}.json").read_text(encoding="utf-8"))
    return found


def page() -> str:
    """Return the page as Markdown."""
    sections = [
        INTRODUCTION,
        CA2,
        *_claim("ca2", ca2.table(record("ca2")["ca2"]), "Seconds up to each chunk, and bytes by denoising steps"),
        _flat(record("ca2")["ca2"]),
        MPCACHE,
        _verdict(record("selection")["selection"]),
        *_claim("selection", selection.table(record("selection")["selection"]), "PSNR over keys read, and overlap"),
        "The Heads tab draws the same matrices of the stream that runs, chunk by chunk.\n",
        WINDOWS,
        _equal(record("equal-bytes")),
        _full_size("equal-bytes"),
        *_recall(),
        DEMANDS,
        _demands(),
        _full_size("demands"),
    ]
    return "\n".join(sections)


def _claim(name: str, table: Sequence[str], caption: str) -> list[str]:
    """The table and the figure of a record of `fkv bench`, and how it was made."""
    made = record(name)
    return [
        f"`{made['command']}`, {made['hardware']['device']}, {made['precision']}, torch {made['versions']['torch']}, "
        f"load before {made['load_before']}:\n",
        "\n".join(["```", *table, "```"]) + "\n",
        f"![{caption}](../assets/benchmarks/sources-{name}.png)\n",
        _full_size(name),
    ]


def _flat(found: Mapping[str, Any]) -> str:
    """Whether a chunk takes as long at the end as when the queue is just full, by policy."""
    full_queue = 9  # chunks: from here on the queue of 24 frames is full
    parts = []
    for name, seconds in found["cumulative_s"].items():
        chunks = [later - earlier for earlier, later in pairwise(seconds)]
        early, late = statistics.median(chunks[full_queue : full_queue + 5]), statistics.median(chunks[-5:])
        parts.append(f"{late / early:.2f} times as long under `{name}`")
    return (
        "At the end of the record a chunk takes, beside one when the queue is just full (medians of five chunks),\n"
        f"{', '.join(parts)}.\n"
    )


def _full_size(name: str) -> str:
    """How a section's record is made at full size."""
    return f"At full size: `{COMMANDS[name]}`\n"


def _verdict(found: dict[str, Any]) -> str:
    """What the record says of the two claims, in words; nothing within the noise is called a gain."""
    rows = {row["policy"]: row for row in found["rows"]}
    chosen = rows["mpcache"]
    window = next(row for name, row in rows.items() if name.startswith("sliding-window"))
    faster = "faster than" if chosen["speed_vs_full"] > 1.05 else "not faster than"
    speed = chosen["speed_vs_full"]
    said = f"At {found['context']} frames of context `mpcache` is {faster} `full` ({speed:.2f} times its speed)"
    pairs = zip(chosen["psnr_by_seed"], window["psnr_by_seed"], strict=True)
    gaps = [ours - theirs for ours, theirs in pairs if None not in (ours, theirs)]
    if len(gaps) < 2:
        return f"{said}. Fewer than two seeds cannot tell whether it comes nearer to its frames than a window.\n"
    gap, noise = statistics.mean(gaps), 2 * statistics.stdev(gaps) / len(gaps) ** 0.5
    if abs(gap) <= noise:
        near = f"{len(gaps)} seeds cannot tell which of them comes nearer to the frames of `full`"
    else:
        near = f"`mpcache` comes {'nearer to' if gap > 0 else 'less near to'} the frames of `full`"
    gone = 1 - chosen["kv_tokens"] / rows["full"]["kv_tokens"]
    return (
        f"{said}, and has dropped {100 * gone:.0f} % of the pages;\n"
        f"`{window['policy']}`, which reads as many keys, is {window['speed_vs_full']:.2f} times as fast.\n"
        f"{near[0].upper()}{near[1:]} on the same noise\n({gap:+.1f} dB; differences within {noise:.1f} dB, "
        "two standard errors of the pairs, are noise).\n"
    )


def _equal(found: dict[str, Any]) -> str:
    """The table of policies that hold equal bytes."""
    policies = found["policies"]
    full = policies["full"]["kv_bytes_peak"]
    last = max(float(key.split(".")[1]) for key in policies["full"] if key.startswith("adherence."))
    head = ["policy", "share of full's bytes", f"adherence at {last:g} s", "PSNR to full, dB", "denoise FPS", "streams"]
    rows = ["| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
    for name, row in policies.items():
        adherence = [value for key, value in row.items() if key.startswith(f"adherence.{last:g}.")]
        cells = [
            f"`{name}`",
            f"{100 * row['kv_bytes_peak'] / full:.0f} %",
            f"{100 * statistics.mean(adherence):.0f} %",
            _number(row["psnr_to_full"], 1),
            _number(row["fps_denoise"], 0),
            str(row["streams"]),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    made = found["records"][0]
    told = (
        f"{made['model']}, {made['precision']}, {made['device']}; streams of {made['seconds']:g} s, one after another"
    )
    return "\n".join([*rows, "", f"{told}, so a busy machine shows in the speeds.\n"])


def _demands() -> str:
    """What the study of prompts found, where it has been recorded."""
    if not (RECORDS / "sources-demands.json").exists():
        return "> No record yet, so nothing is claimed and no classifier ships.\n"
    found = record("demands")
    said = sentence(found)
    return f"> {said[0].upper()}{said[1:]} ({found['seconds']:g} s, {found['seeds']} seeds).\n"


def _recall() -> list[str]:
    """The recall of the same policies, where it has been recorded: it takes a model of the memory world."""
    if not (RECORDS / "sources-recall.json").exists():
        return [f"What returns after it left the picture takes a model of the memory world: `{COMMANDS['recall']}`\n"]
    rows = record("recall")["recall"]
    lines = ["| policy | away, s | recall (95 % interval) | items shown | items held | KV, MB |", "|-|-|-|-|-|-|"]
    for row in rows:
        recall = f"{100 * row['recall']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
        shares = f"{100 * row['shown']:.0f} % of {row['items']} | {100 * row['cached']:.0f} %"
        lines.append(
            f"| `{row['policy']}` | {row['away']:g} | {recall} | {shares} | {row['kv_bytes_peak'] / 1e6:.1f} |"
        )
    return ["\n".join(lines) + "\n", _full_size("recall")]


def _number(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    ca2.figure(record("ca2"), RECORDS / "sources-ca2.png")
    selection.figure(record("selection"), RECORDS / "sources-selection.png")
    PAGE.write_text(page(), encoding="utf-8")
