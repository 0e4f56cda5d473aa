"""Run the parts one after another, each in a process of its own, and write what each found as soon as it ends."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fkv import runtime

from .bounded import Processes

LEAST = 8  # seconds in which no part is worth beginning
CARRIED = ("diffusers", "pydantic", "pydantic_core", "annotated_types")  # packages that images with PyTorch lack
NEEDED = (*CARRIED, "torch", "triton", "transformers", "safetensors", "pandas", "cv2", "psutil", "tqdm", "pytest")


def carried() -> str:
    """The packages to carry, in the versions that are installed here."""
    found = []
    for package in CARRIED:
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            found.append(package)
    return " ".join(found)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Check and measure everything on one NVIDIA GPU: kernels, golden data, the tiny model, models of Wan's\n"
            "sizes with random weights. Each part is bounded in time and runs in a process of its own; DIR then holds\n"
            "a JSON file per part, summary.txt and log.txt, the last two complete after every part."
        ),
        epilog=(
            "Needs PyTorch with CUDA, Triton, transformers, pandas, OpenCV and pytest, but neither Gradio nor Plotly.\n"
            "For a machine without a network, download what it lacks here and install it there:\n\n"
            "  pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\\n"
            "    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest wheels \\\n"
            f"    {carried()}\n"
            "  pip install --no-index --no-deps --target site wheels/*.whl\n"
            "  PYTHONPATH=site python -m tests.gpu --minutes 10 --out DIR"
        ),
    )
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="the folder to write to")
    parser.add_argument("--minutes", type=float, default=10, help="how long all parts may take together (default: 10)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only parts with this text in their name")
    parser.add_argument(
        "--rehearse", action="store_true", help="do the same on the CPU in small sizes, to see that it works"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run all parts. Returns 1 where one did not end well, otherwise 0."""
    began = time.monotonic()
    processes = Processes([f"{__package__}.parts", "fkv.models.registry", "fkv.analysis.evaluate"])
    from . import parts, summary

    chosen = [part for part in (parts.rehearsed() if args.rehearse else parts.PARTS) if args.only in part.name]
    if not chosen:
        raise ValueError(f"no part has {args.only!r} in its name; there are {', '.join(p.name for p in parts.PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "log.txt"
    done: list[dict[str, Any]] = []
    for part in chosen:
        begins = time.monotonic()
        left = 60 * args.minutes - (begins - began)
        status = "skipped: no time was left"
        if left >= LEAST:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n== {part.name}: {part.words}\n")
            seconds = min(part.seconds * args.minutes / 10, left)
            status = processes.run(seconds, log, parts.work, part, args.out, args.rehearse)
        done.append({"name": part.name, "status": status, "seconds": time.monotonic() - begins})
        print(f"{part.name}: {status}, {done[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
        (args.out / "summary.txt").write_text(summary.text(args.out, done), encoding="utf-8")
    print((args.out / "summary.txt").read_text(encoding="utf-8"))
    return 0 if all(part["status"] == "ok" for part in done) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 2, after one sentence, where it cannot begin."""
    args = arguments(argv)
    runtime.prepare()
    os.environ["TQDM_DISABLE"] = "1"  # the log is no terminal
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        print(f"tests.gpu: {', '.join(missing)} missing; --help says how to carry packages", file=sys.stderr)
        return 2
    if not args.minutes > 0:
        print(f"tests.gpu: --minutes must be more than 0, not {args.minutes:g}", file=sys.stderr)
        return 2
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f"tests.gpu: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
