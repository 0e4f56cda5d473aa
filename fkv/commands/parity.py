"""python -m fkv parity: replay golden data of the official implementation and report every difference."""

from __future__ import annotations

import argparse
import sys

from .output import emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv parity`."""
    parser.add_argument("folder", help="a folder with golden data: meta.json, heads.json and safetensors files")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Replay golden data. Returns 1 when a difference is beyond tolerance; raises ValueError with a sentence."""
    from fkv import parity

    [target] = outputs(args, "json")
    report = parity.check(args.folder)
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
