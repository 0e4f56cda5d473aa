"""python -m fkv debate: let a jury say what a clip of the tiny model's world shows."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .output import emit, outputs

if TYPE_CHECKING:
    from fkv.debate.transcript import Event

GROUPS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv debate`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("clip", nargs="?", metavar="CLIP.mp4", help="a video of the tiny model's world")
    what.add_argument(
        "--renders", type=int, metavar="N", help="measure juries on N renders whose truth is known, instead of a clip"
    )
    parser.add_argument("--jurors", type=int, default=6, help="how many see the clip, each a third of it (default: 6)")
    parser.add_argument("--groups", type=int, help=f"groups in which they debate (default: {GROUPS}; 1 with --plain)")
    parser.add_argument("--plain", action="store_true", help="plain debate: all hear all, and answer in every round")
    parser.add_argument("--seed", type=int, help="whole number that seats the jurors (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the transcript there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Hold a debate, or measure. Raises ValueError with a sentence for the user."""
    from tqdm import tqdm

    from fkv.debate import jury, study
    from fkv.debate.engine import MOST, Debate
    from fkv.stream import check_seed

    [report] = outputs(args, "json")
    if args.plain and args.groups is not None:
        raise ValueError("--plain is a debate in one group; leave out --groups")
    if args.renders is not None and (args.plain or args.seed is not None):
        raise ValueError(
            "--renders measures plain debate too, and the number of a render seats its jurors; leave out --plain and "
            "--seed"
        )
    groups = min(GROUPS, args.jurors) if args.groups is None else args.groups
    if args.renders is not None and args.renders < 1:
        raise ValueError(f"--renders must be at least 1, not {args.renders}")
    if not 1 <= args.jurors <= MOST:
        raise ValueError(f"--jurors must be 1 to {MOST}, not {args.jurors}")
    if args.renders is not None:
        records = study.records(range(args.renders), args.jurors, groups)
        found = list(tqdm(records, total=args.renders, unit="render", file=sys.stderr))
        emit(study.summary(found, args.jurors, groups), report)
        return 0
    seated = jury.jurors(jury.load_clip(args.clip), args.jurors, check_seed(args.seed or 0))
    debate = Debate(seated, groups=1 if args.plain else groups, sparse=not args.plain)
    transcript = debate.hold(jury.QUESTION, _print)
    emit(transcript.as_json(), report)
    calls = (
        f"{transcript.calls} calls, {transcript.silent_share:.0%} of later turns silent, {transcript.tokens:,} tokens"
    )
    print(f"verdict: {transcript.verdict.text if transcript.verdict else 'none'} ({calls})", file=sys.stderr)
    return 0


def _print(event: Event) -> None:
    print(event.line, file=sys.stderr)
