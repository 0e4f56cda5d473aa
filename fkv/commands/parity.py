"""python -m fkv parity: replay golden data of the official implementation and report every difference."""

from __future__ import annotations

import argparse
import sys

from fkv import parity

from .output import emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv parity`."""
    parser.add_argument("folder", help="a folder with golden data: meta.json, heads.json and safetensors files")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """1 when a difference is beyond tolerance. Raises ValueError with a sentence for the user."""
    [target] = outputs(args, "json")
    report = parity.check(args.folder)
    emit(report, target)
    for name, run in report["runs"].items():
        for what, result in run.items():
            for part, value in result.items() if "ok" not in result else ((None, result),):
                worst = f"max {value['max']:.2e}" if "max" in value else ""
                print(
                    f"{'ok ' if value['ok'] else 'BAD'}  {name:>10}  {' '.join(filter(None, (what, part))):<48} {worst}",
                    file=sys.stderr,
                )
    print("parity: ok" if report["ok"] else "parity: differences beyond tolerance", file=sys.stderr)
    return 0 if report["ok"] else 1
