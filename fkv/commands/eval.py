"""python -m fkv eval: prompt adherence, stability, speed and memory of policies in the toy world."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import add_story, print_hints, read_policies, read_story
from .model_options import add_device, add_precision, add_spread
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.models.base import VideoModel
    from fkv.storyboard import Storyboard

WITHOUT_RECALL = ("shared", "story", "table", "sheet", "oracle")
"""Options that `--recall` does not follow."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv eval`."""
    parser.add_argument(
        "--model",
        help="the model to evaluate, or a folder of one; it must generate the toy world (default: tiny, with --recall "
        "tiny-memory)",
    )
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--policy",
        default="full,forcing-kv",
        metavar="P[,P]",
        help="comma-separated; all stands for those that fit the model, all,-NAME for all but one (default: "
        "full,forcing-kv)",
    )
    parser.add_argument(
        "--prompts",
        type=int,
        help="how many held-out prompts (default: 8; 4 with --recall; 1 with a storyboard that begins with a prompt)",
    )
    add_story(parser)
    parser.add_argument(
        "--steps", metavar="N[,N]", help="how many denoising steps, for figures by steps (default: the model's number)"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many seeds, counted from 0, for each prompt (default: 1)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="length of each stream in seconds of video (default: 60, or the length of --story's scenes)",
    )
    add_spread(parser)
    parser.add_argument(
        "--shared",
        action="store_true",
        help="compute once what the streams of a prompt and a seed have in common: the same frames, without speeds",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for records, report and figure; a later run continues from its records"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the report there instead of to stdout; one that is there already gets the policies that it lacks "
        "(with --recall, it is replaced)",
    )
    parser.add_argument(
        "--table", metavar="FILE", help="also write a Markdown table with 95 %% intervals over prompts there"
    )
    parser.add_argument(
        "--recall", action="store_true", help="score what returns after it left the picture; for models of that world"
    )
    parser.add_argument(
        "--away", metavar="S[,S]", help="with --recall, seconds out of the picture (default: 3,10,20,60)"
    )
    parser.add_argument(
        "--bytes",
        metavar="P[,P]",
        help="give each policy these shares of full's bytes, in percent, in a stream of --seconds; full joins",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="also measure the oracle itself, on renders and through the codec"
    )
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="also write a contact sheet under the first policy and the first number of --steps: PNG, or PDF with the "
        "prompts on the last page",
    )


def _fitted(args: argparse.Namespace, policies: list[str], seconds: float) -> list[str]:
    """The policies, with --bytes in settings that hold equal bytes, which are said on stderr."""
    if args.bytes is None:
        return policies
    from fkv.analysis import equal_bytes
    from fkv.models import registry

    wanted = equal_bytes.shares(args.bytes)
    model = registry.load(args.model, args.device, precision=args.precision)
    found = equal_bytes.fitted(model, policies, wanted, seconds)
    print(f"at {args.bytes} % of the bytes of full: {', '.join(found[1:])}", file=sys.stderr)
    return found


def _steps(text: str | None) -> list[int | None]:
    """Read numbers of steps, [None] for the model's own. Raises ValueError for another text."""
    if text is None:
        return [None]
    try:
        return list(dict.fromkeys(int(number) for number in text.split(",")))
    except ValueError:
        raise ValueError(f"--steps needs numbers of steps such as 1,2,4, not {text!r}") from None


def _recall(args: argparse.Namespace) -> int:
    """Score recall; table to stderr, report to --json or stdout."""
    from fkv.analysis import recall
    from fkv.analysis.evaluation_table import with_steps
    from fkv.models import registry

    target, folder = outputs(args, "json", "out/")
    if idle := [f"--{name}" for name in WITHOUT_RECALL if getattr(args, name)]:
        raise ValueError(f"--recall scores the model as it is, stream by stream; leave out {' and '.join(idle)}")
    if args.seconds is not None and not args.bytes:
        raise ValueError("with --recall, --seconds is the length that --bytes counts; leave it out, or name --bytes")
    try:
        away = [float(seconds) for seconds in args.away.split(",")] if args.away else recall.AWAY
    except ValueError:
        raise ValueError(f"--away needs seconds such as 3,20, not {args.away!r}") from None
    policies = read_policies(args.policy, lambda: registry.load(args.model, args.device, precision=args.precision))
    policies = _fitted(args, policies, args.seconds or 60)
    prompts = 4 if args.prompts is None else args.prompts
    setup = (prompts, args.seeds, away, args.model, args.device, args.precision, folder, args.workers)
    records = [
        record | {"policy": with_steps(record["policy"], steps)}
        for steps in _steps(args.steps)
        for record in recall.recall(policies, *setup, steps, args.ray)
    ]
    print(recall.table(records), file=sys.stderr)
    found = {"recall": recall.summary(records).to_dict("records"), "records": records}
    emit(found, target)
    if folder:
        from fkv.analysis.figures import Recall

        emit(found, folder / "recall.json")
        Recall(recall.summary(records, ("policy",))).save(folder)
    return 0


def _earlier(
    args: argparse.Namespace,
    target: Path | None,
    load: Callable[[], VideoModel],
    prompts: int,
    seconds: float,
    story: Storyboard,
) -> dict[str, Any]:
    """Read the report that --json names, to continue it. Raises ValueError for one of other settings."""
    from fkv.analysis.report_file import check_settings, read_report
    from fkv.models.identity import identity_of
    from fkv.storyboard import write

    report = read_report(target)
    if report["records"]:
        name, checkpoint, precision = identity_of(load())
        wanted: dict[str, Iterable[Any]] = {
            "model": [name],
            "checkpoint": [checkpoint],
            "precision": [precision],
            "prompt": range(prompts),
            "seed": range(args.seeds),
            "seconds": [seconds],
            "story": [write(story) or None],
            "steps": _steps(args.steps),
            "timing": ["shared" if args.shared else None],
        }
        check_settings(target, report["records"], wanted)
        print(f"{target} holds {len(report['records'])} records, which are kept", file=sys.stderr)
    return report


def run(args: argparse.Namespace) -> int:
    """Evaluate policies; table to stderr, report to --json or stdout. Raises ValueError with a sentence."""
    args.model = args.model or ("tiny-memory" if args.recall else "tiny")
    if args.recall:
        return _recall(args)
    if args.away:
        raise ValueError("--away goes with --recall")
    from fkv.analysis.evaluate import evaluate
    from fkv.analysis.evaluation_report import report, table
    from fkv.analysis.evaluation_streams import REFERENCE
    from fkv.analysis.evaluation_table import with_steps
    from fkv.analysis.report_file import joined
    from fkv.models import registry
    from fkv.storyboard import ANY_ROLES, parse
    from fkv.world import FPS
    from fkv.world.story import CHUNK

    target, sheet, page, folder = outputs(args, "json", "sheet", "table", "out/")
    check_ending("sheet", sheet, ".png", ".pdf")
    check_ending("table", page, ".md")
    load = cache(lambda: registry.load(args.model, args.device, precision=args.precision))
    policies = read_policies(args.policy, load)
    story = parse(read_story(args.story), ANY_ROLES, None, CHUNK / FPS)
    prompts = args.prompts if args.prompts is not None else 8 if story.opening is None else 1
    seconds = args.seconds
    if seconds is None:
        seconds = 60 if story.chunks is None else story.chunks * CHUNK / FPS
    if sheet:
        from fkv.analysis.contact_sheet import COLUMNS, check_size

        check_size(prompts, COLUMNS, seconds)
    policies = _fitted(args, policies, seconds)
    first = policies[0]
    numbers = _steps(args.steps)
    earlier = _earlier(args, target, load, prompts, seconds, story)
    records: list[dict[str, Any]] = earlier["records"]
    if any(with_steps(REFERENCE, record.get("steps")) == record["policy"] for record in records):
        policies = list(dict.fromkeys([REFERENCE, *policies]))
    more: dict[str, Any] = {name: earlier[name] for name in ("oracle", "renders", "hints") if name in earlier}
    if story.prompts:
        print_hints(load(), story.prompts)
        more |= {"hints": hints} if (hints := load().hints_of(story.prompts)) else {}
    for steps in numbers:
        label = with_steps("", steps)
        known = [
            record | {"policy": record["policy"].removesuffix(label)}
            for record in earlier["records"]
            if record.get("steps") == steps
        ]
        found = evaluate(
            policies,
            prompts,
            args.seeds,
            seconds,
            args.model,
            args.device,
            args.precision,
            folder,
            args.workers,
            args.ray,
            story,
            steps,
            args.shared,
            known,
        )
        records = joined(records, [record | {"policy": record["policy"] + label} for record in found])
    print(table(records), file=sys.stderr)
    if args.oracle:
        from fkv.analysis.adherence import oracle_accuracy
        from fkv.analysis.stream_measures import measure_renders

        accuracy = oracle_accuracy(load(), samples=100)
        renders = measure_renders(prompts, seconds)
        more |= {"oracle": accuracy, "renders": renders}
        for source, words in accuracy.items():
            shares = ", ".join(f"{word} {share:.1%}" for word, share in words.items())
            print(f"oracle on {source}: {shares}", file=sys.stderr)
        measures = ", ".join(f"{name} {value:.3f}" for name, value in renders.items())
        print(f"renders: {measures}", file=sys.stderr)
    told = report(records, **more)
    emit(told, target)
    if folder:
        from fkv.analysis.evaluation_plots import overview

        emit(told, folder / "report.json")
        overview(records, folder / "evaluation.png")
    if page:
        from fkv.analysis.evaluation_table import markdown

        page.write_text(markdown(records), encoding="utf-8")
    if sheet:
        from fkv.analysis.contact_sheet import contact_sheet

        contact_sheet(load().with_steps(numbers[0]), first, sheet, prompts, seconds, story=story)
    return 0
