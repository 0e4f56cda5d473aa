"""python -m fkv compare: run policies interleaved on the same noise and compare them with full."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .common import add_run, check_run, load, read_policies, read_story
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    import numpy as np

    from fkv.stream import Chunk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv compare`."""
    add_run(parser)
    parser.add_argument(
        "--policies",
        default="full,forcing-kv",
        help="comma-separated; all stands for those that fit the model, all,-NAME for all but one (default: "
        "full,forcing-kv); full is added when missing",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="compute once what policies have in common: the same frames sooner, without speeds",
    )
    parser.add_argument(
        "--sheet", metavar="FILE", help="also draw the frames of every policy at the same moments (PNG)"
    )


def run(args: argparse.Namespace) -> int:
    """Compare policies. Raises ValueError with a sentence for the user."""
    import numpy as np

    from fkv import policies
    from fkv.comparison import compare, evenly_spaced

    check_run(args)
    text = read_story(args.story)
    report, sheet = outputs(args, "json", "sheet")
    check_ending("sheet", sheet, ".png")
    loaded = cache(lambda: load(args, text))
    chosen = [policies.parse(each) for each in read_policies(args.policies, lambda: loaded().model)]
    settings = loaded()
    model = settings.model
    if sheet and model.decoder is None:
        raise ValueError("--sheet shows frames, and there is no decoder; choose one with --decoder or leave it out")
    count = len(chosen) + all(policy.name != "full" for policy in chosen)
    shown = evenly_spaced(settings.chunks)
    frames: dict[str, list[np.ndarray]] = {}
    with tqdm(total=count * settings.chunks, unit="chunk", file=sys.stderr) as bar:

        def seen(label: str, chunk: Chunk) -> None:
            if sheet and chunk.video is not None and chunk.index + 1 in shown:
                frames.setdefault(label, []).append(chunk.video[-1])
            bar.update()

        result = compare(
            model,
            chosen,
            settings.prompt,
            args.seed,
            settings.chunks,
            settings.roles,
            seen=seen,
            story=settings.story,
            say=lambda sentence: bar.write(sentence, file=sys.stderr),
            shared=args.shared,
        )
    emit(result, report)
    if sheet:
        from fkv.analysis.evaluation_plots import filmstrips

        seconds = [number * model.chunk_seconds for number in shown]
        filmstrips(list(result["policies"]), [np.stack(frames[label]) for label in result["policies"]], seconds, sheet)
    if args.shared:
        told = f"{result['chunks_computed']} of {result['chunks_asked']} chunks were computed and the others shared"
        print(told, file=sys.stderr)
    for label, figures in result["policies"].items():
        speed = "" if args.shared else _speed(figures)
        print(f"{label:>18}: {speed}{figures['kv_bytes_peak'] / 1e6:.2f} MB KV", file=sys.stderr)
    return 0


def _speed(figures: dict[str, Any]) -> str:
    """What was measured of a policy in seconds, in words."""
    return (
        f"denoise {_rate(figures['fps_denoise'])}, end to end {_rate(figures['fps_end_to_end'])}, "
        f"{figures['ratio_denoise']['median']:.2f}x full's speed (median), "
    )


def _rate(fps: float | None) -> str:
    """Frames per second in words; there are none without a decoder."""
    return "no frames" if fps is None else f"{fps:6.1f} FPS"
