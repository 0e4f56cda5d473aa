"""python -m fkv stream: generate one stream; write video and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext

from tqdm import tqdm

from fkv import policies
from fkv.parallel.overlap import Overlap
from fkv.probe import FrameMassProbe
from fkv.report import stream_record
from fkv.storyboard import at_chunk
from fkv.stream import Chunk, Stream, check_prompt
from fkv.video import Mp4Writer

from .common import add_run, check_run, load
from .model_options import add_overlap, check_options
from .output import emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv stream`."""
    add_run(parser)
    parser.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
    parser.add_argument("--out", metavar="FILE", help="write the video there as MP4")
    parser.add_argument(
        "--record", metavar="DIR", help="write the raw record there, attention mass included, for `fkv analyze`"
    )
    for option, what in (("switch", "policy"), ("say", "prompt")):
        parser.add_argument(
            f"--{option}",
            action="append",
            default=[],
            metavar=f"CHUNK:{what.upper()}",
            help=f"go on with another {what} from that chunk on, counted from 1; may be repeated",
        )
    parser.add_argument(
        "--recache", action="store_true", help="at --say, recompute the held frames under the new prompt"
    )
    add_overlap(parser)


def run(args: argparse.Namespace) -> int:
    """Raises ValueError with a sentence for the user."""
    check_run(args)
    check_options(args)
    policy = policies.parse(args.policy)
    switches = [at_chunk(text, args.chunks, "5:forcing-kv") for text in args.switch]
    switches = [(chunk, policies.parse(what)) for chunk, what in switches]
    prompts = [at_chunk(text, args.chunks, "5:a blue star") for text in args.say]
    prompts = [(chunk, check_prompt(what)) for chunk, what in prompts]
    if args.recache and not prompts:
        raise ValueError("--recache goes with another prompt; name one with --say, as in --say 7:'a blue star'")
    out, report, record = outputs(args, "out", "json", "record/")
    model, override = load(args)
    probe = FrameMassProbe() if record else None
    decoded = Overlap(model) if args.overlap else iter
    live = Stream(model, policy, args.prompt, args.seed, override, decode=not args.overlap)
    made, masses = [], []

    def chunks() -> Iterator[Chunk]:
        for index in tqdm(range(args.chunks), unit="chunk", file=sys.stderr):
            for _, switched in (s for s in switches if s[0] == index):
                live.set_policy(switched)
            for _, prompt in (p for p in prompts if p[0] == index):
                live.set_prompt(prompt, recache=args.recache)
            chunk = live.step(probe)
            masses.extend(probe.take() if probe else [])
            yield chunk

    with Mp4Writer(out, model.fps) if out else nullcontext() as video:
        for chunk in decoded(chunks()):
            made.append(chunk)
            if video:
                video.write(chunk.video)
    if record:
        from fkv.analysis.record import Run, save, settings_of

        save(Run(settings_of(live), tuple(made), tuple(masses), live.roles), record)
    emit(stream_record(made, model, args.seed, args.device), report)
    return 0
