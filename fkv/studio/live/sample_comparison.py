"""A recorded comparison of all policies, which the Compare tab opens with.

    python -m fkv.studio.live.sample_comparison

records it again, as is needed whenever the weights change: a studio shows only a comparison of the very weights that it
runs. Streams share what they have in common, so the table has pictures and memory, and no speeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fkv import policies
from fkv.commands.model_options import add_model, load_model
from fkv.models.base import VideoModel
from fkv.models.identity import identity_of
from fkv.studio.media.assets import ASSETS

from .comparison import compare, default_prompts, player
from .comparison_figures import report
from .comparison_plan import ComparisonPlan
from .limits import Limits
from .queue import Queue
from .run import Run

FILE = ASSETS / "compared.json"
COMMAND = "python -m fkv.studio.live.sample_comparison"
CHUNKS = 7  # that the scenes of the default prompts last
GROUP = 7  # policies that run at once; each group has the reference, too


def record(model: VideoModel, names: list[str], prompts: list[str], chunks: int, seed: int = 0) -> dict[str, Any]:
    """Compare policies with the first of them, a few at a time, without speeds.

    Args:
        model: What generates.
        names: The policies.
        prompts: Prompts or scenes.
        chunks: Length of each stream.
        seed: Chooses the noise.

    Returns:
        The report of the comparison without its streams, and when and by which command it was made.

    Raises:
        ValueError: A setting is out of range, or a run fails.
    """
    told: dict[str, Any] = {}
    limits = Limits(seconds=float("inf"), idle=float("inf"))
    starts = range(1, len(names), GROUP)
    for start in tqdm(starts, unit="group", file=sys.stderr):
        group = [names[0], *names[start : start + GROUP]]
        written = "\n".join(prompts)
        plan = ComparisonPlan.from_form(
            group, written, str(seed), chunks, shared=True, chunk_seconds=model.chunk_seconds
        )
        run = Run(memory=0)
        *_, last = compare(model, player(model, limits), plan, run, Queue(), limits)
        if run.ended != "finished":
            raise ValueError(last.text)
        found = report(model, plan, last.records, model.device, run.ended)
        told = found | {"policies": told.get("policies", {}) | found["policies"]}
    kept = ("model", "device", "torch", "reference", "prompts", "seeds", "chunks", "meaning", "policies")
    return {
        "command": COMMAND,
        "date": datetime.date.today().isoformat(),
        "checkpoint": identity_of(model).checkpoint,
        **{name: told[name] for name in kept},
    }


def recorded(model: VideoModel, file: Path = FILE) -> dict[str, Any] | None:
    """The recorded comparison; None where there is none of these very weights."""
    if not file.exists():
        return None
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told if (told["model"], told["checkpoint"]) == identity_of(model)[:2] else None


def main(argv: list[str] | None = None) -> int:
    """Record a comparison. Returns 2, after one sentence, where that is not possible."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0])
    add_model(parser)
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="length of each stream (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        model = load_model(args)
        names = policies.fitting(model.geometry, model.roles)
        names = ["full", *(name for name in names if name != "full")]
        told = record(model, names, default_prompts(model, max(1, args.chunks // CHUNKS)), args.chunks)
        args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"sample_comparison: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(told['policies'])} policies", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
