"""python -m fkv surgery: flip the role of heads or silence them, and see what that changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
from tqdm import tqdm

from fkv import policies
from fkv import roles as role_files
from fkv.analysis.surgery import Effect, operate
from fkv.policies.silenced import read_heads
from fkv.stream import MAX_SEED, check_chunks, check_prompt, check_seed

from .model_options import add_model, load_model
from .output import PICTURES, check_ending, emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv surgery`."""
    add_model(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to start from instead of the model's own")
    for name, help in (
        ("flip", "turn static heads dynamic and the other way round"),
        ("silence", "leave heads only the current chunk"),
    ):
        parser.add_argument(
            f"--{name}",
            dest="operations",
            action="append",
            type=lambda text, name=name: (name, text),
            metavar="HEADS",
            help=f"{help}, as in 3.2,4.1 (LAYER.HEAD); may be repeated, each is a stream of its own",
        )
    parser.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
    parser.add_argument("--prompt", help="what the video shows (default: the model's first example)")
    parser.add_argument("--seed", type=int, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    parser.add_argument("--chunks", type=int, default=7, help="chunks per stream (default: 7)")
    parser.add_argument("--json", metavar="FILE", help="also write the effects there")
    parser.add_argument("--out", metavar="FIGURE", help="also draw them there, as PNG, SVG or PDF")


def run(args: argparse.Namespace) -> int:
    """Operate on heads and print what that changes. Raises ValueError with a sentence for the user."""
    operations = list(dict.fromkeys((name, read_heads(text, ",")) for name, text in args.operations or ()))
    if not operations:
        raise ValueError("nothing to operate on; name heads with --flip or --silence, as in --flip 3.2,4.1")
    policy = policies.parse(args.policy)
    check_chunks(args.chunks), check_seed(args.seed)
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
            f"policy {policy.name!r} does not go by head roles, so to flip one changes nothing; name another with --policy"
        )
    with tqdm(total=(1 + len(operations)) * args.chunks, unit="chunk", file=sys.stderr) as bar:
        effects = list(operate(model, policy, operations, prompt, args.seed, args.chunks, roles, bar.update))
    print(table(effects))
    if target:
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
    """One line per operation: PSNR of each chunk to the untouched run in dB, and the KV bytes of the last chunk."""
    rows = [
        [
            *("equal" if value is None else f"{value:.1f} dB" for value in effect.psnr),
            f"{effect.kv_bytes:,}",
            f"{effect.kv_change:+,}",
        ]
        for effect in effects
    ]
    columns = [*(f"chunk {i}" for i in range(len(effects[0].psnr))), "KV bytes", "change"]
    return pd.DataFrame(rows, [effect.label for effect in effects], columns).to_string()
