"""python -m fkv stream: generate one stream; write video and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tqdm import tqdm

from .common import RunSettings, add_changes, add_run, check_run, cues_of, load, read_story
from .director_options import add_language_model, endpoint_of
from .model_options import add_overlap, check_options
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.debate.ahead import Ahead
    from fkv.debate.endpoint import Endpoint
    from fkv.models.base import VideoModel
    from fkv.policies import Policy
    from fkv.probe import PassMass
    from fkv.search.auto import Auto
    from fkv.search.guard import Guard
    from fkv.search.head import Head
    from fkv.search.rewards import Rewards
    from fkv.search.tolerance import Tolerance
    from fkv.stream import Chunk, Stream

RECENT = 4  # chunks that the oracle reads for the director


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv stream`."""
    add_run(parser)
    parser.add_argument(
        "--policy",
        help="NAME or NAME:key=value,... (default: forcing-kv; of models without head roles the rule they were "
        "released with, of --checkpoint its --window); "
        "auto:tolerance=30+every=4 goes on with the leanest of forcing-kv, sliding-window and full whose frames reach "
        "at least 30 dB PSNR against the full cache's, measured every 4 chunks; +among=POLICY|POLICY names others",
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
    parser.add_argument(
        "--forbid",
        metavar="WHAT",
        help="check every chunk before it is emitted, and make another in its place where it shows what is forbidden: "
        "words that the tiny model's oracle sees, as in red,night, or a classifier MODULE:FUNCTION(video, prompt) that "
        "returns less than 0.5 then; a stream that cannot be kept stops; no safety guarantee",
    )
    parser.add_argument(
        "--head",
        metavar="FILE",
        help="a head of `fkv search --learn`: with --forbid it ranks what is tried, and with --policy auto it predicts "
        "the loss of each policy, so that nothing is measured",
    )
    add_overlap(parser)


def run(args: argparse.Namespace) -> int:
    """Generate a stream. Raises ValueError with a sentence for the user."""
    from fkv import policies
    from fkv.parallel.overlap import Overlap
    from fkv.probe import FrameMassProbe
    from fkv.report import stream_record
    from fkv.sampler import BranchNoise, read_path
    from fkv.search.tolerance import FULL, Tolerance
    from fkv.storyboard import STREAM
    from fkv.stream import Stream

    check_run(args)
    check_options(args)
    tolerance = Tolerance.parse(args.policy or "")
    if tolerance:
        _refuse(args, "--policy auto compares the next chunk under several caches", "forbid")
    policy = policies.parse(FULL if tolerance else args.policy) if args.policy else None
    path = read_path(args.path or "")
    text = read_story(args.story)
    if args.director is not None and (text or args.say or args.recache):
        raise ValueError("--director writes the storyboard; leave out --story, --say and --recache")
    forbidden = _forbidden(args)
    if args.head and not (forbidden or tolerance):
        raise ValueError("--head ranks what --forbid tries, or predicts what --policy auto loses; name one of them")
    if args.director is None and (args.llm or args.llm_model):
        raise ValueError("--llm and --llm-model go with --director IDEA")
    cues = cues_of(args)
    out, report, record = outputs(args, "out", "json", "record/")
    if out:
        from fkv.video import ENDING, Mp4Writer

        check_ending("out", out, ENDING)
    endpoint = None if args.director is None else endpoint_of(args)
    settings = load(args, text, cues, [STREAM])
    if len(path) > settings.chunks:
        raise ValueError(
            f"--path names {len(path)} chunks, and the stream has {settings.chunks}; add --chunks {len(path)}"
        )
    model = settings.model
    policy = policy or policies.parse("forcing-kv" if settings.roles else model.policies[0])
    director = _director(args, model, endpoint) if args.director is not None else None
    if out and model.decoder is None:
        raise ValueError("--out writes a video, and there is no decoder; choose one with --decoder or leave it out")
    probe = FrameMassProbe() if record else None
    noise = BranchNoise(args.seed, path)
    stream = Stream(model, policy, settings.prompt, roles=settings.roles, noise=noise, decode=not args.overlap)
    masses: list[PassMass] = []

    guard = _guard(args, settings, policy, forbidden) if forbidden else None
    auto = _auto(args, settings, stream, tolerance) if tolerance else None
    special = guard or auto
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
        video: Mp4Writer | None = None
        made = tqdm(special.run(), total=settings.chunks, unit="chunk", file=sys.stderr) if special else generate()
        for chunk in Overlap(model)(made) if args.overlap else made:
            chunks.append(chunk)
            if out and chunk.video is not None:
                video = video or stack.enter_context(Mp4Writer(out, model.fps))
                video.write(chunk.video)
    if guard and guard.stopped:
        print(guard.stopped, file=sys.stderr)
    told = {**({"guard": guard.report()} if guard else {}), **({"auto": auto.report()} if auto else {})}
    nothing = {"model": model.name, "prompt": settings.prompt, "seed": args.seed, "chunks": []}
    try:
        if record:
            from fkv.analysis.record import Run, save, settings_of

            save(Run(settings_of(stream), tuple(chunks), tuple(masses), stream.roles), record)
    finally:
        emit((stream_record(chunks, model, args.seed, args.device) if chunks else nothing) | told, report)
    return 1 if guard and guard.stopped else 0


def _refuse(args: argparse.Namespace, why: str, *names: str) -> None:
    """Raise ValueError where options are given that need every chunk to be generated once, or those of `names`."""
    if unfit := [name for name in (*names, "record", "director", "overlap") if getattr(args, name)]:
        raise ValueError(f"{why}, which does not go with --{unfit[0]}")


def _forbidden(args: argparse.Namespace) -> Rewards | None:
    """The detector of `--forbid`. Raises ValueError where it cannot be read or does not go with other options."""
    if args.forbid is None:
        return None
    _refuse(args, "--forbid checks each chunk before the next begins", "path")
    from fkv.search.forbidden import detector

    return detector(args.forbid)


def _auto(args: argparse.Namespace, settings: RunSettings, stream: Stream, tolerance: Tolerance) -> Auto:
    """The choice of `--policy auto`, by a head where one is named."""
    from fkv.search.auto import Auto
    from fkv.search.rewards import parse

    head = _head(args, settings.model, parse("faithful"))
    return Auto(stream, settings.story, settings.chunks, tolerance, head)


def _head(args: argparse.Namespace, model: VideoModel, wanted: Rewards) -> Head | None:
    """The head of `--head`, None where there is none. Raises ValueError where it was trained for something else."""
    from pathlib import Path

    from fkv.search.head import Head
    from fkv.search.learning import check_head
    from fkv.search.looks import weights_of

    if not args.head:
        return None
    head = Head.load(Path(args.head))
    check_head(head, weights_of(model) | {"rewards": "+".join(wanted.parts)}, ("model", "checkpoint", "rewards"))
    return head


def _guard(args: argparse.Namespace, settings: RunSettings, policy: Policy, forbidden: Rewards) -> Guard:
    """The guard of `--forbid`."""
    from fkv import policies
    from fkv.sampler import Noise
    from fkv.search.guard import Guard
    from fkv.search.moves import Moves
    from fkv.search.rewards import check_model
    from fkv.stream import Stream

    model = settings.model
    check_model(forbidden, model)
    words = forbidden.forbidden
    moves = Moves(
        settings.story,
        ("code", "avoid" if words else "wording"),
        settings.prompt,
        policies.write(policy),
        steps=len(model.schedule.sigmas),
        chunks=settings.chunks,
        forbidden=words,
    )

    def begin(noise: Noise) -> Stream:
        return Stream(model, policy, settings.prompt, roles=settings.roles, noise=noise)

    return Guard(begin, model, args.seed, moves, forbidden, _head(args, model, forbidden))


def _director(args: argparse.Namespace, model: VideoModel, endpoint: Endpoint | None) -> Ahead:
    """The director of `--director`, its first debate held."""
    from functools import partial

    from fkv.analysis.oracle_checks import draws_world
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
    from fkv.storyboard import STREAM

    recent = chunks[-RECENT:]

    def facts() -> tuple[str, ...]:
        import numpy as np

        from fkv.analysis.oracle_checks import draws_world
        from fkv.debate.director import measured

        videos = [chunk.video for chunk in recent if chunk.video is not None]
        readable = draws_world(stream.model) and videos
        held = {frame for pages in recent[-1].pages.values() for frame in pages.frame.tolist()} if recent else set()
        seconds = stream.model.video_frames_per_latent / stream.model.fps
        return measured(np.concatenate(videos) if readable else None, held, seconds)

    changes, sentences = director.changes(index, facts)
    return [*sentences, *filter(None, (change.apply({STREAM: stream}) for change in changes))]
