"""python -m fkv surgery: flip the role of heads or silence them, and see what that changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm

from .common import print_hints
from .model_options import add_model, load_model
from .output import PICTURES, check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.analysis.surgery import Effect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv surgery`."""
    add_model(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to start from instead of the model's")
    for name, effect in (
        ("flip", "turn static heads dynamic and the other way round"),
        ("silence", "let heads attend only to the current chunk"),
    ):
        parser.add_argument(
            f"--{name}",
            dest="operations",
            action="append",
            type=partial(_operation, name),
            metavar="HEADS",
            help=f"{effect}, as in 3.2,4.1 (LAYER.HEAD); may be repeated, and each use is a separate stream",
        )
    parser.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
    parser.add_argument("--prompt", help="what the video shows (default: the model's first example)")
    parser.add_argument("--seed", type=int, default=0, help="whole number that chooses the noise (default: 0)")
    parser.add_argument("--chunks", type=int, default=7, help="chunks per stream (default: 7)")
    parser.add_argument(
        "--json", metavar="FILE", help="also write the effects there; - writes them to stdout, and the table to stderr"
    )
    parser.add_argument("--out", metavar="FIGURE", help="also draw them there, as PNG, SVG or PDF")


def _operation(name: str, heads: str) -> tuple[str, str]:
    """An operation and the heads it is for, as text."""
    return name, heads


def run(args: argparse.Namespace) -> int:
    """Operate on heads and print what that changes. Raises ValueError with a sentence for the user."""
    from fkv import policies
    from fkv import roles as role_files
    from fkv.analysis.surgery import operate
    from fkv.policies.silenced import read_heads
    from fkv.stream import check_chunks, check_prompt, check_seed

    operations = list(dict.fromkeys((name, read_heads(text, ",")) for name, text in args.operations or ()))
    if not operations:
        raise ValueError("nothing to operate on; name heads with --flip or --silence, as in --flip 3.2,4.1")
    policy = policies.parse(args.policy)
    check_chunks(args.chunks)
    check_seed(args.seed)
    if args.prompt is not None:
        check_prompt(args.prompt)
    target, drawing = outputs(args, "json", "out")
    check_ending("out", drawing, *PICTURES)
    roles = role_files.load(args.roles) if args.roles else None
    model = load_model(args)
    prompt = check_prompt(args.prompt or next(iter(model.examples), ""))
    for layer, head in (head for _, heads in operations for head in heads):
        model.geometry.check_head(layer, head)
    if any(name == "flip" for name, _ in operations) and policy.groups(model.geometry, roles or model.roles) is None:
        raise ValueError(
            f"policy {policy.name!r} does not use head roles, so a flip changes nothing; name another with --policy"
        )
    print_hints(model, [prompt])
    with tqdm(total=(1 + len(operations)) * args.chunks, unit="chunk", file=sys.stderr) as bar:
        effects = list(operate(model, policy, operations, prompt, args.seed, args.chunks, roles, bar.update))
    print(table(effects), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json:
        settings = {
            "model": model.name,
            "policy": args.policy,
            "prompt": prompt,
            "seed": args.seed,
            "chunks": args.chunks,
        }
        emit(settings | {"effects": list(map(asdict, effects))}, target)
    if drawing:
        from fkv.analysis.figures import SurgeryEffects

        subtitle = f"{model.name}, {args.policy}, seed {args.seed}: {prompt}"
        SurgeryEffects(effects, subtitle).matplotlib().savefig(drawing, dpi=160)
    return 0


def table(effects: Sequence[Effect]) -> str:
    """Write one line per operation: each chunk's PSNR to the untouched run in dB, and the last chunk's KV bytes."""
    import pandas as pd

    rows = [
        [
            *("equal" if value is None else f"{value:.1f} dB" for value in effect.psnr),
            f"{effect.kv_bytes:,}",
            f"{effect.kv_change:+,}",
        ]
        for effect in effects
    ]
    columns = [*(f"chunk {number}" for number in range(1, len(effects[0].psnr) + 1)), "KV bytes", "change"]
    return pd.DataFrame(rows, [effect.label for effect in effects], columns).to_string()
