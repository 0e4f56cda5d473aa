"""python -m fkv eval: prompt adherence, stability, speed and memory of policies in the toy world."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fkv.models.release import CHOICES

from .model_options import add_device
from .output import check_ending, emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv eval`."""
    parser.add_argument(
        "--model", default="tiny", help="the model to evaluate; it must generate the toy world (default: tiny)"
    )
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=CHOICES["precision"],
        help="of the model (default: what the device multiplies in hardware)",
    )
    parser.add_argument(
        "--policy", default="full,forcing-kv", metavar="P[,P]", help="comma-separated (default: full,forcing-kv)"
    )
    parser.add_argument("--prompts", type=int, default=8, help="how many held-out prompts (default: 8)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many seeds, counted from 0, for each prompt (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="length of each stream in seconds of video (default: 60)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes; several share the machine, so speeds suffer (default: 1)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="spread over a Ray cluster instead; `local` starts one on this machine"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for records, report and figure; a later run continues from its records"
    )
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")
    parser.add_argument(
        "--oracle", action="store_true", help="also measure the oracle itself, on renders and through the codec"
    )
    parser.add_argument(
        "--sheet", metavar="FILE", help="also write a contact sheet (PNG) of the prompts under the first policy"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate policies; table to stderr, report to --json or stdout. Raises ValueError with a sentence for the user."""
    import pandas as pd

    from fkv.analysis.evaluate import (
        contact_sheet,
        evaluate,
        measure_renders,
        oracle_accuracy,
        over_time,
        report,
        table,
    )
    from fkv.models import registry
    from fkv.policies import split

    target, sheet, folder = outputs(args, "json", "sheet", "out/")
    check_ending("sheet", sheet, ".png")
    policies = split(args.policy)
    asked = args.model, args.device, args.precision
    records = evaluate(policies, args.prompts, args.seeds, args.seconds, *asked, folder, args.workers, args.ray)
    if args.oracle or args.sheet:
        model = registry.load(args.model, args.device, precision=args.precision)
    print(table(records), file=sys.stderr)
    more: dict[str, Any] = {}
    if args.oracle:
        more = {"oracle": oracle_accuracy(model, samples=100), "renders": measure_renders(args.prompts, args.seconds)}
        for source, words in more["oracle"].items():
            print(
                f"oracle on {source}: " + ", ".join(f"{word} {share:.1%}" for word, share in words.items()),
                file=sys.stderr,
            )
        print(
            "renders: " + ", ".join(f"{name} {value:.3f}" for name, value in more["renders"].items()), file=sys.stderr
        )
    found = report(records, **more)
    if folder:
        from fkv.analysis.evaluation_plots import overview

        overview(over_time(records), pd.json_normalize(records), folder / "evaluation.png")
        emit(found, folder / "report.json")
    if sheet:
        contact_sheet(model, policies[0], sheet, args.prompts, args.seconds)
    emit(found, target)
    return 0
