"""python -m fkv compare: run policies interleaved on the same noise and compare them with full."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from .. import policies
from ..compare import compare
from ..output import emit, outputs
from .common import add_run, check_run, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv compare`."""
    add_run(parser)
    parser.add_argument(
        "--policies", default="full,forcing-kv", help="comma-separated (default: full,forcing-kv); full is added when missing"
    )


def run(args: argparse.Namespace) -> int:
    """Raises ValueError with a sentence for the user."""
    check_run(args)
    chosen = [policies.parse(text) for text in policies.split(args.policies)]
    [report] = outputs(args, "json")
    model, override = load(args)
    count = len(chosen) + all(policy.name != "full" for policy in chosen)
    with tqdm(total=count * args.chunks, unit="chunk", file=sys.stderr) as bar:
        result = compare(model, chosen, args.prompt, args.seed, args.chunks, override, progress=bar.update)
    emit(result, report)
    for label, own in result["policies"].items():
        print(
            f"{label:>18}: denoise {own['fps_denoise']:6.1f} FPS, end to end {own['fps_end_to_end']:6.1f} FPS, "
            f"{own['ratio_denoise']['median']:.2f}x full's speed (median), {own['kv_bytes_peak'] / 1e6:.2f} MB KV",
            file=sys.stderr,
        )
    return 0
