"""python -m fkv stream: generate one stream; write video and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tqdm import tqdm

from .common import STREAM, add_changes, add_run, check_run, cues_of, load, read_story
from .director_options import add_language_model, endpoint_of
from .model_options import add_overlap, check_options
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.debate.ahead import Ahead
    from fkv.debate.endpoint import Endpoint
    from fkv.models.base import VideoModel
    from fkv.probe import PassMass
    from fkv.stream import Chunk, Stream

RECENT = 4  # chunks that the oracle reads for the director


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv stream`."""
    add_run(parser)
    parser.add_argument(
        "--policy", help="NAME or NAME:key=value,... (default: forcing-kv; of --checkpoint, its --window)"
    )
    parser.add_argument("--out", metavar="FILE", help="write the video there as MP4")
    parser.add_argument(
        "--path",
        metavar="N,N,...",
        help="noise of each chunk, to repeat the path that `fkv search` reports with --seed",
    )
    parser.add_argument(
        "--record", metavar="DIR", help="write the raw record there, attention mass included, for `fkv analyze`"
    )
    add_changes(parser)
    parser.add_argument(
        "--director", metavar="IDEA", help="agents agree on the scenes while it streams, from an idea in a line"
    )
    add_language_model(parser)
    add_overlap(parser)


def run(args: argparse.Namespace) -> int:
    """Generate a stream. Raises ValueError with a sentence for the user."""
    from fkv import policies
    from fkv.parallel.overlap import Overlap
    from fkv.probe import FrameMassProbe
    from fkv.report import stream_record
    from fkv.sampler import BranchNoise
    from fkv.stream import Stream

    check_run(args)
    check_options(args)
    policy = None if args.policy is None else policies.parse(args.policy)
    path = _path(args.path)
    text = read_story(args.story)
    if args.director is not None and (text or args.say):
        raise ValueError("--director writes the storyboard; leave out --story and --say")
    if args.director is None and (args.llm or args.llm_model):
        raise ValueError("--llm and --llm-model go with --director IDEA")
    cues = cues_of(args)
    out, report, record = outputs(args, "out", "json", "record/")
    if out:
        from fkv.video import ENDING, Mp4Writer

        check_ending("out", out, ENDING)
    endpoint = None if args.director is None else endpoint_of(args)
    settings = load(args, text, cues, [STREAM])
    model = settings.model
    policy = policy or policies.parse("forcing-kv" if settings.roles else model.policies[0])
    director = _director(args, model, endpoint) if args.director is not None else None
    if out and model.decoder is None:
        raise ValueError("--out writes a video, and there is no decoder; choose one with --decoder or leave it out")
    probe = FrameMassProbe() if record else None
    noise = BranchNoise(args.seed, path)
    stream = Stream(model, policy, settings.prompt, roles=settings.roles, noise=noise, decode=not args.overlap)
    masses: list[PassMass] = []

    chunks: list[Chunk] = []

    def generate() -> Iterator[Chunk]:
        for index in tqdm(range(settings.chunks), unit="chunk", file=sys.stderr):
            sentences = settings.story.apply(index, {STREAM: stream})
            if director:
                sentences += _follow(director, index, stream, chunks)
            for sentence in sentences:
                tqdm.write(f"chunk {index + 1}: {sentence}", file=sys.stderr)
            yield stream.step(probe)
            if probe:
                masses.extend(probe.take())

    with ExitStack() as stack:
        video = stack.enter_context(Mp4Writer(out, model.fps)) if out else None
        for chunk in Overlap(model)(generate()) if args.overlap else generate():
            chunks.append(chunk)
            if video and chunk.video is not None:
                video.write(chunk.video)
    if record:
        from fkv.analysis.record import Run, save, settings_of

        save(Run(settings_of(stream), tuple(chunks), tuple(masses), stream.roles), record)
    emit(stream_record(chunks, model, args.seed, args.device), report)
    return 0


def _path(text: str | None) -> tuple[int, ...]:
    """The noise of each chunk, none for the plain stream. Raises ValueError for anything but whole numbers."""
    parts = [] if text is None else text.split(",")
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise ValueError(f"--path has a whole number for each chunk, as in 0,3,1, not {text!r:.60}")
    return tuple(map(int, parts))


def _director(args: argparse.Namespace, model: VideoModel, endpoint: Endpoint | None) -> Ahead:
    """The director of `--director`, its first debate held."""
    from functools import partial

    from fkv.analysis.evaluate import draws_world
    from fkv.debate.ahead import Ahead
    from fkv.debate.director import direct
    from fkv.debate.scenes import Brief

    director = Ahead(
        Brief(args.director, toy_world=draws_world(model)), partial(direct, endpoint=endpoint, seed=args.seed)
    )
    print("the director's agents debate before the first chunk", file=sys.stderr)
    director.begin()
    return director


def _follow(director: Ahead, index: int, stream: Stream, chunks: Sequence[Chunk]) -> list[str]:
    """Change the stream as the director says. Returns sentences on what it did."""
    recent = chunks[-RECENT:]

    def facts() -> tuple[str, ...]:
        import numpy as np

        from fkv.analysis.evaluate import draws_world
        from fkv.debate.director import measured

        videos = [chunk.video for chunk in recent if chunk.video is not None]
        readable = draws_world(stream.model) and videos
        held = {frame for pages in recent[-1].pages.values() for frame in pages.frame.tolist()} if recent else set()
        seconds = stream.model.video_frames_per_latent / stream.model.fps
        return measured(np.concatenate(videos) if readable else None, held, seconds)

    changes, sentences = director.changes(index, facts)
    return [*sentences, *filter(None, (change.apply({STREAM: stream}) for change in changes))]
