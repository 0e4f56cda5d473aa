"""Write docs/policies.md with its figure, and the drawings of the page's policy picker: `python -m docs.policies`.

Its tables of measurements are made of the records of `COMMAND` and `STEPS_COMMAND`, where there are any.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.expectations import EXPECTED, SURPRISING
from fkv.analysis.evaluation_plots import overview
from fkv.analysis.evaluation_table import markdown, with_steps
from fkv.models import tiny
from fkv.parameters import Parameter, describe
from fkv.policies import POLICIES, Policy, parity
from fkv.resources import asset
from fkv.stream import Stream
from fkv.studio.tabs.policy_picker import DRAWN_CHUNKS
from fkv.world import PROMPT
from fkv.xray import xray

PAGE = Path(__file__).with_suffix(".md")
DRAWINGS = asset("studio") / "policies.json"
RECORD = Path(__file__).parents[1] / "assets" / "benchmarks" / "policies.json"
FIGURE = RECORD.with_suffix(".png")
STEPS_RECORD = RECORD.with_name("steps.json")
COMMAND = (
    "python -m fkv eval --policy all,-recompute --prompts 12 --seconds 60 --out runs/policies "
    "--json assets/benchmarks/policies.json"
)
"""What makes the record. With fewer policies it makes a part, which a later run adds to, also on another machine."""
STEPS_COMMAND = (
    "python -m fkv eval --policy full,forcing-kv --prompts 12 --seconds 60 --steps 1,2,3,4 --out runs/steps "
    "--json assets/benchmarks/steps.json"
)
"""What makes the record by denoising steps."""
INTRODUCTION = """\
# Cache policies

A policy, or cache rule, decides which pages of the cache survive a chunk. It is written as its name, with parameters
after a colon and silenced heads after `without`: `--policy "forcing-kv:retention=0.5,sink_frames=2 without 3.2+4.1"`.
`commit:6 longlive` lets the context pass of a policy read the 6 newest frames alone. In Python, `fkv.policies.parse`
reads the same text.

To compare policies: `fkv compare` (one prompt, speed and frames), `fkv eval` (many prompts, adherence and drift) and
the [board](board.md) (one protocol for all). To write one of your own:
[CONTRIBUTING.md](../CONTRIBUTING.md#add-a-policy).

What a policy reads is given in latent frames for its default parameters and chunks of 3 frames: S sink, M memory,
R recent, C the current chunk. *Equal by recorded numbers* means that `fkv parity` replays a run of the authors' code
and finds the same.

What `ca2-vdm`, `mpcache` and `window-kv` cost and bring is measured in [sources.md](sources.md).

Pages that a policy keeps but does not read stay on the device that generates. There is no CPU archive: it could not be
tested without a GPU.

This page is written from the code by `python -m docs.policies`.

## Words

- **Latent frame**: a frame as the model generates it; the decoder turns each into several video frames.
- **Chunk**: the latent frames that are generated together, 3 by default.
- **Page**: a latent frame, or a segment of one, as the cache stores its keys and values.
- **Static and dynamic heads**: heads that attend mostly to the newest frames, and all others. These *head roles* come
  from `fkv profile`, which scores heads by the share of their attention on the newest frames.
- **Silenced head**: a head that attends to the current chunk alone.
- **Head group**: heads, in every layer, with the same cached pages.
- **Sink**: the first frames of the stream, kept for good.
- **Anchor**: the last frames before a chunk, kept for the transition into it.
- **Context pass**: one more pass over the finished chunk, which stores the keys and values that later chunks read.
- **Re-cache**: at a new prompt, those keys and values are computed again under it.
- **Flush, cut**: the cache forgets all but the first frame and the two newest; a chunk begins another scene.
- **Oracle**: code that reads colours, shapes, motions, place and time of day off frames of the toy world.
- **Adherence**: the share of the prompt's words that the oracle sees in the video.
"""


MEASURED = """\
## On held-out prompts

Every policy with its default parameters on the tiny model, beside what we expected before we measured. `recompute` is
left out: it generates the frames of `full`, and the twelve streams would take hours.

Drift of colours: how far the histograms of the last 5 seconds are from those of the first, 0 equal, 1 nothing shared.
Chunk discontinuity: how much the largest movements stand out, 1 is even. Flicker: grey levels by which frames differ
from their neighbours. Switch success: the share of changes of the prompt that are seen within 3 chunks.
"""


BY_STEPS = """\
## By denoising steps

The tiny model was trained on four steps; the page, links, storyboards and commands take one to four.
"""


def page() -> str:
    """Return the page as Markdown."""
    sections = [INTRODUCTION, *map(section, POLICIES.values())]
    sections += ["## Parameters of every policy\n", table(describe(Policy)), MEASURED, measured()]
    return "\n".join([*sections, BY_STEPS, by_steps()])


def measured() -> str:
    """Return the figures of the record beside what was expected, or without a record what is expected."""
    if not RECORD.exists():
        rows = [f"| `{name}` | {POLICIES[name].reading} | {text} |" for name, text in EXPECTED.items()]
        return "\n".join([f"> No record yet: `{COMMAND}`\n", "| policy | reads | expected |", "|-|-|-|", *rows, ""])
    records = recorded()
    picture = (
        f"![Adherence, chunk borders, drift, speed and memory of every policy](../assets/benchmarks/{FIGURE.name})\n"
    )
    figures = markdown(records, {"expected": EXPECTED, "surprising": SURPRISING})
    return "\n".join([what(records), picture, figures, f"Recorded with: `{COMMAND}`\n"])


def recorded() -> list[dict[str, Any]]:
    """The records of every policy, in the order of `EXPECTED`."""
    made = json.loads(RECORD.read_text(encoding="utf-8"))
    return sorted(made["records"], key=lambda record: list(EXPECTED).index(record["policy"]))


def by_steps() -> str:
    """Return the figures of the record by denoising steps; without a record, how to make it."""
    if not STEPS_RECORD.exists():
        return f"> No record yet: `{STEPS_COMMAND}`\n"
    records = json.loads(STEPS_RECORD.read_text(encoding="utf-8"))["records"]
    records.sort(key=lambda record: (record["steps"], record["policy"] != f"full{with_steps('', record['steps'])}"))
    return "\n".join([what(records), markdown(records), f"Recorded with: `{STEPS_COMMAND}`\n"])


def what(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the model and the machines of records."""
    first = records[0]
    return f"{first['model']} ({first['checkpoint']}), {first['precision']}, {machines(records)}.\n"


def machines(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what the records were measured on, and which policies on which of several machines."""
    policies: dict[str, dict[str, None]] = {}
    for record in records:
        policies.setdefault(record["device"], {})[f"`{record['policy']}`"] = None
    if len(policies) == 1:
        return next(iter(policies))
    parts = [f"{', '.join(names)} on {device}" for device, names in policies.items()]
    return f"{'; '.join(parts)}; PSNR to full is to `full` of the same machine"


def section(policy: type[Policy]) -> str:
    """Return what there is to say about one policy."""
    help = f"{policy.help[0].upper()}{policy.help[1:]}"
    if policy.paper:
        help = f"{help.removesuffix(')')}; {policy.paper})" if help.endswith(")") else f"{help} ({policy.paper})"
    said = f"{help}. Reads {policy.reading}; {parity(policy)}.\n"
    parts = [f"## {policy.name}\n", said, description(policy)]
    parent = next((other for other in POLICIES.values() if issubclass(policy, other) and other is not policy), Policy)
    changed = tuple(each for each in describe(policy) if each not in describe(parent))
    if parent is not Policy:
        parts.append(f"Parameters of `{parent.name}`{', but:' if changed else '.'}\n")
    if changed:
        parts.append(table(changed))
    return "\n".join(parts)


def description(policy: type[Policy]) -> str:
    """Return the docstring without its sections for programmers."""
    return inspect.cleandoc(policy.__doc__ or "").partition("\n\nRaises:")[0] + "\n"


def table(parameters: tuple[Parameter, ...]) -> str:
    """Return parameters as a table."""
    rows = ["| parameter | default | values | |", "|-|-|-|-|"]
    for each in parameters:
        default = str(each.default).lower() if isinstance(each.default, bool) else each.default
        unit = f", in {each.unit}" if each.unit else ""
        rows.append(f"| `{each.name}` | {default} | {each.values}{unit} | {each.help} |")
    return "\n".join(rows) + "\n"


def drawing(policy: Policy) -> dict[str, object]:
    """What the page draws of a policy: the page table of the tiny model while chunk `DRAWN_CHUNKS` attends."""
    stream = Stream(tiny.load(), policy, PROMPT, decode=False)
    chunk = [stream.step() for _ in range(DRAWN_CHUNKS)][-1]
    return {"frames": chunk.frames[-1] + 1, "groups": xray(chunk)}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    if RECORD.exists():
        records = recorded()
        overview(records, FIGURE)
    rows = [f"{json.dumps(name)}: {json.dumps(drawing(policy()))}" for name, policy in POLICIES.items()]
    DRAWINGS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
