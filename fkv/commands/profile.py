"""python -m fkv profile: score a model's heads and give them roles."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from fkv.files import read_text

from .common import print_hints
from .model_options import add_model, load_model
from .output import emit, outputs

if TYPE_CHECKING:
    from fkv.models.base import VideoModel

MAX_PROMPTS_BYTES = 1 << 20
PROMPTS = 8  # where --prompts does not say how many


def read_prompts(path: str) -> list[str]:
    """Read a text file with one prompt per line. Raises ValueError where there is none or one is not usable."""
    from fkv.stream import check_prompt

    try:
        lines = read_text(path, MAX_PROMPTS_BYTES).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(
            f"--prompts is a number or a text file with one prompt per line; cannot read {path}: {reason}"
        ) from None
    if not (prompts := [check_prompt(line) for line in lines if line.strip()]):
        raise ValueError(f"{path} has no prompt; write one per line")
    return prompts


def prompts_for(model: VideoModel, count: int | None) -> list[str]:
    """Choose prompts to profile with: captions of random scenes for the tiny model, the examples of any other.

    For a model of the memory world every second one is a shot.

    Args:
        model: The model to profile.
        count: How many prompts; None for `PROMPTS`, or all examples where they are fewer.

    Raises:
        ValueError: The model has fewer examples.
    """
    from fkv.world import shots
    from fkv.world.captions import caption, sample_scene

    rng = random.Random(0)
    if model.transformer.events:
        return [
            shots.caption(shots.sample_shot(rng), rng) if i % 2 else caption(sample_scene(rng), rng)
            for i in range(count or PROMPTS)
        ]
    if model.name == "tiny":
        return [caption(sample_scene(rng), rng) for _ in range(count or PROMPTS)]
    count = count or max(1, min(PROMPTS, len(model.examples)))
    if count > len(model.examples):
        raise ValueError(
            f"{model.name} comes with {len(model.examples)} example prompts, not {count}; "
            "name a file with one prompt per line"
        )
    return list(model.examples[:count])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv profile`."""
    add_model(parser)
    parser.add_argument(
        "--prompts",
        metavar="N|FILE",
        help="how many prompts, or a file with one per line (default: 8, or the examples of a model that has fewer)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many seeds, counted from 0, for each prompt (default: 1)"
    )
    parser.add_argument("--chunks", type=int, default=7, help="chunks per run; the last one is measured (default: 7)")
    parser.add_argument(
        "--threshold", type=float, default=0.8, help="heads that score at least this are static (default: 0.8)"
    )
    parser.add_argument("--skip", type=int, default=1, help="sink frames left out of the score (default: 1)")
    parser.add_argument("--last-k", type=int, default=4, help="last key frames that the score counts (default: 4)")
    parser.add_argument(
        "--passes",
        choices=("context", "all"),
        default="context",
        help="passes whose attention is scored (default: context)",
    )
    parser.add_argument("--queries", type=int, help="about how many queries per frame to score (default: all)")
    parser.add_argument("--out", metavar="FILE", help="write the roles there")
    parser.add_argument(
        "--classes",
        type=int,
        metavar="CHUNKS",
        help="also class heads by their logits in runs of so many chunks, such as 20, and write that into --out; "
        "pyramid-forcing reads it",
    )
    parser.add_argument("--official", action="store_true", help="write the roles in the official form, without scores")
    parser.add_argument("--compare", metavar="FILE", help="say how many heads have the same role in this roles file")
    parser.add_argument("--figures", metavar="DIR", help="write figures (PNG, SVG, CSV) and one HTML page there")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Profile a model's heads. Raises ValueError with a sentence for the user."""
    from fkv import roles as role_files
    from fkv.analysis.head_classes import check_length, head_classes, with_classes
    from fkv.analysis.profile import check_settings, profile
    from fkv.stream import check_chunks

    check_chunks(args.chunks)
    check_settings(args.threshold, args.skip, args.last_k, args.queries)
    if not 1 <= args.seeds <= 1000:
        raise ValueError(f"--seeds must be 1 to 1000, it is {args.seeds}")
    named = args.prompts or ""
    count = int(named) if named.isdecimal() else None
    if count is not None and not 1 <= count <= 1000:
        raise ValueError(f"--prompts must be 1 to 1000 or a text file, it is {named}")
    from_file = read_prompts(named) if named and count is None else []
    other = role_files.load(args.compare) if args.compare else None
    out, target, figures = outputs(args, "out", "json", "figures/")
    if args.official and not out:
        raise ValueError("--official chooses the form of the roles file; name that file with --out")
    if args.classes is not None and (not out or args.official):
        raise ValueError("--classes go into a roles file of our own form; name one with --out, without --official")
    if args.classes is not None:
        check_length(args.classes)
    model = load_model(args)
    if other:
        other.check(model.transformer.layers, model.transformer.heads)
    prompts = from_file or prompts_for(model, count)
    print_hints(model, from_file)
    seeds = range(args.seeds)
    total = len(prompts) * len(seeds) * (args.chunks + (args.classes or 0))
    with tqdm(total=total, unit="chunk", file=sys.stderr) as bar:
        found = profile(
            model,
            prompts,
            seeds,
            args.chunks,
            args.threshold,
            args.skip,
            args.last_k,
            args.passes,
            args.queries,
            lambda chunk: bar.update(),
        )
        roles = found.roles
        if args.classes is not None:
            classes = head_classes(model, prompts, seeds, args.classes, progress=lambda chunk: bar.update())
            roles = with_classes(roles, classes)
    report = found.report()
    if other:
        report["agreement_with"] = {
            "file": Path(args.compare).name,
            "agreement": round(found.roles.agreement(other), 4),
        }
    try:
        if out:
            role_files.save(roles, out, args.official)
    finally:
        emit(report, target)
    if figures:
        from fkv.analysis.export import export_profile

        export_profile(found, figures)
    return 0
