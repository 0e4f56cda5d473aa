"""python -m fkv parity: replay golden data of the official implementation and report every difference."""

from __future__ import annotations

import argparse
import sys

from .model_options import add_device
from .output import emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv parity`."""
    parser.add_argument("folder", help="a folder with golden data: meta.json, heads.json and safetensors files")
    parser.add_argument("--runs", metavar="RUN[,RUN]", help="only these runs of the folder (default: all)")
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the model; in bf16, differences of its rounding count as none (default: fp32)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Replay golden data. Returns 1 when a difference is beyond tolerance; raises ValueError with a sentence."""
    from fkv import parity
    from fkv.models import registry

    [target] = outputs(args, "json")
    registry.check_device(args.device)
    report = parity.check(args.folder, args.device, args.precision, args.runs.split(",") if args.runs else ())
    emit(report, target)
    for name, results in report["runs"].items():
        for what, result in results.items():
            parts = {"": result} if "ok" in result else result
            for part, value in parts.items():
                verdict = "ok " if value["ok"] else "BAD"
                worst = f"max {value['max']:.2e}" if "max" in value else ""
                print(f"{verdict}  {name:>10}  {f'{what} {part}'.strip():<48} {worst}", file=sys.stderr)
    print("parity: ok" if report["ok"] else "parity: differences beyond tolerance", file=sys.stderr)
    return 0 if report["ok"] else 1
