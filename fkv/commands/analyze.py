"""python -m fkv analyze: draw the figures of a recorded run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .output import outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv analyze`."""
    parser.add_argument("run_folder", metavar="RUN", help="folder of a recorded run (record.json, record.safetensors)")
    parser.add_argument("--out", metavar="DIR", required=True, help="write figures (PNG, SVG, CSV) and run.html there")
    parser.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="LAYER.HEAD",
        help="also draw the attention of this head; may be repeated",
    )
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="of the figures (default: light)")


def run(args: argparse.Namespace) -> int:
    """Draw a recorded run. Raises ValueError with a sentence for the user."""
    from fkv.analysis import export, record

    heads = [_head(text) for text in args.head]
    outputs(args, "out/")
    recorded = record.load(args.run_folder)
    if heads and not recorded.masses:
        raise ValueError(f"{args.run_folder} has no attention masses to draw with --head; use a record of `fkv stream`")
    for path in export.export_run(recorded, Path(args.out), heads, args.theme):
        print(path, file=sys.stderr)
    return 0


def _head(text: str) -> tuple[int, int]:
    """Read LAYER.HEAD."""
    layer, dot, head = text.partition(".")
    if not dot or not layer.isdecimal() or not head.isdecimal():
        raise ValueError(f"--head is written LAYER.HEAD, as in 3.0, not {text!r}")
    return int(layer), int(head)
