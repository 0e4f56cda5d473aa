"""python -m fkv compare: run policies interleaved on the same noise and compare them with full."""

from __future__ import annotations

import argparse
import sys

import numpy as np
from tqdm import tqdm

from fkv import policies
from fkv.comparison import compare, moments
from fkv.stream import Chunk

from .common import add_run, check_run, load
from .output import check_ending, emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv compare`."""
    add_run(parser)
    parser.add_argument(
        "--policies",
        default="full,forcing-kv",
        help="comma-separated (default: full,forcing-kv); full is added when missing",
    )
    parser.add_argument("--sheet", metavar="FILE", help="also draw what every policy painted at the same moments (PNG)")


def run(args: argparse.Namespace) -> int:
    """Raises ValueError with a sentence for the user."""
    check_run(args)
    chosen = [policies.parse(text) for text in policies.split(args.policies)]
    report, sheet = outputs(args, "json", "sheet")
    check_ending("sheet", sheet, ".png")
    model, override = load(args)
    if sheet and model.decoder is None:
        raise ValueError("--sheet shows pictures, and there is no decoder; choose one with --decoder or leave it out")
    count, shown, films = len(chosen) + all(policy.name != "full" for policy in chosen), moments(args.chunks), {}
    with tqdm(total=count * args.chunks, unit="chunk", file=sys.stderr) as bar:

        def seen(label: str, chunk: Chunk) -> None:
            if sheet and chunk.index + 1 in shown:
                films.setdefault(label, []).append(chunk.video[-1])
            bar.update()

        result = compare(model, chosen, args.prompt, args.seed, args.chunks, override, seen=seen)
    emit(result, report)
    if sheet:
        from fkv.analysis.evaluation_plots import filmstrips

        seconds = np.array(shown) * model.frames_per_chunk * model.video_frames_per_latent / model.fps
        filmstrips(list(result["policies"]), [np.stack(films[label]) for label in result["policies"]], seconds, sheet)
    for label, own in result["policies"].items():
        print(
            f"{label:>18}: denoise {own['fps_denoise']:6.1f} FPS, end to end {own['fps_end_to_end']:6.1f} FPS, "
            f"{own['ratio_denoise']['median']:.2f}x full's speed (median), {own['kv_bytes_peak'] / 1e6:.2f} MB KV",
            file=sys.stderr,
        )
    return 0
