"""python -m fkv batch: many streams from one file; what they have in common is computed once."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fkv.models.release import Setup

from .common import print_hints, read_input
from .model_options import add_model, load_model
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    import numpy as np

    from fkv.batch.folder import Folder
    from fkv.batch.jobs import Job
    from fkv.batch.jobs import Path as JobPath
    from fkv.batch.memory import Claim
    from fkv.models.base import VideoModel

SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*(|[KMGT]i?)B?", re.IGNORECASE)
MAX_FILE_BYTES = 16 << 20
SHEET_FRAMES = 6
MAX_SHEET_ROWS = 48
NOTE = "what this detector sees is not written; no safety guarantee"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv batch`."""
    parser.add_argument(
        "jobs",
        metavar="JOBS.jsonl",
        help='a stream a line: {"name": ..., "prompt": ..., "story": ..., "policy": ..., "seed": ..., "chunks": ..., '
        '"roles": ...}',
    )
    add_model(parser)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for videos and manifest; a later run goes on from there"
    )
    parser.add_argument(
        "--kv-budget",
        default="",
        metavar="SIZE",
        help="bytes of K and V at once, as in 2GiB (default: half of what is free)",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=1,
        help="streams that share a pass; with 1, frames are to the last bit those of streams one by one (default: 1)",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="share the pages of a common past in place of copying them: less memory, other rounding",
    )
    parser.add_argument(
        "--alone", action="store_true", help="generate every stream from its beginning, to measure what is saved"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread groups of jobs with a common past over a Ray cluster; `local` starts one on this machine",
    )
    parser.add_argument(
        "--forbid",
        metavar="WHAT",
        help="check every video before it is written, and fail a job that shows what is forbidden: words that the tiny "
        "model's oracle sees, as in red,night, or a classifier MODULE:FUNCTION; no safety guarantee",
    )
    parser.add_argument("--sheet", metavar="FILE", help="also write a contact sheet of all videos (PNG)")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


@dataclass
class Ended:
    """What has ended so far.

    Args:
        records: Of the jobs that are finished, by name, as `fkv.batch.folder.Folder.add` returns them.
        errors: Why a job failed, by name.
        said: Sentences on jobs that followed only a part of their storyboard.
        computed: Chunks computed.
        kv_bytes_peak: The most bytes of K and V at once.
    """

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    computed: int = 0
    kv_bytes_peak: int = 0


def run(args: argparse.Namespace) -> int:
    """Run a batch. Returns 1 when a job failed. Raises ValueError with a sentence for the user."""
    from fkv.batch import plan
    from fkv.batch.jobs import Path as JobPath
    from fkv.batch.jobs import read
    from fkv.batch.memory import Memory, claims
    from fkv.models.memory import free_memory
    from fkv.report import device_name

    if args.rows < 1:
        raise ValueError(f"--rows must be at least 1, not {args.rows}")
    budget = _size(args.kv_budget) if args.kv_budget else None
    jobs = read(read_input("the jobs", args.jobs, MAX_FILE_BYTES))
    out, sheet, report = outputs(args, "out/", "sheet", "json")
    assert out is not None
    check_ending("sheet", sheet, ".png")
    model = _model(args)
    budget = budget or free_memory(args.device)["device"] // 2
    paths = [JobPath.of(job, model) for job in jobs]
    print_hints(model, (prompt for path in paths for prompt in (path.prompt, *path.story.prompts)))
    folder = _folder(out, model, args)
    ended = Ended(folder.finished(paths))
    waiting = [path for path in paths if path.job.name not in ended.records]
    nodes = [plan.Node(0, len(path), [path]) for path in waiting] if args.alone else plan.grow(waiting)
    roots = claims(nodes, Memory(model, args.share), budget)
    computed = sum(root.node.computed for root in roots)
    asked = plan.asked(waiting)
    if ended.records:
        print(f"{len(ended.records)} of {len(jobs)} jobs are finished already", file=sys.stderr)
    one_level = plan.computed_with_one_level(nodes)
    if asked:
        print(
            f"{computed} of {asked} chunks to compute: {1 - computed / asked:.1%} saved "
            f"({1 - one_level / asked:.1%} where a stream may fork only once)",
            file=sys.stderr,
        )
    began = time.perf_counter()
    with tqdm(total=computed, unit="chunk", file=sys.stderr) as bar:
        try:
            if args.ray:
                _spread(args, folder, roots, budget, ended, bar)
            else:
                _generate(args, model, folder, roots, budget, ended, bar)
        except KeyboardInterrupt:
            print(f"fkv batch: stopped after {_so_far(ended, jobs)}", file=sys.stderr)
            return 130
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                error = ValueError(f"cannot write {error.filename or out}: {error.strerror or error}")
            raise ValueError(f"{error}; stopped after {_so_far(ended, jobs)}") from None
    seconds = time.perf_counter() - began
    try:
        folder.write_manifest(paths, ended.records, ended.errors)
    finally:
        emit(
            {
                "jobs": len(jobs),
                "failed": ended.errors,
                "manifest": str(folder.manifest),
                "device": device_name(model.device),
                "precision": model.precision,
                "rows": args.rows,
                "pages": "shared" if args.share else "copied",
                **({"forbidden": args.forbid, "note": NOTE} if args.forbid is not None else {}),
                "timing": "shared",  # streams that share work have no speed of their own
                "chunks_asked": asked,
                "chunks_computed": ended.computed,
                "chunks_computed_with_one_level": one_level,
                "seconds": seconds,
                "chunks_per_second": ended.computed / seconds if ended.computed else None,
                "kv_bytes_peak": ended.kv_bytes_peak,
                "kv_budget": budget,
            },
            report,
        )
    if sheet:
        shown = [ended.records[job.name] for job in jobs if job.name in ended.records][:MAX_SHEET_ROWS]
        if len(shown) < len(ended.records):
            print(f"the sheet shows the first {MAX_SHEET_ROWS} of {len(ended.records)} videos", file=sys.stderr)
        longest = max((record["frames"] for record in shown), default=0)
        _draw_sheet([out / record["video"] for record in shown], longest, model.fps, sheet)
    return 1 if ended.errors else 0


def _model(args: argparse.Namespace) -> VideoModel:
    """The model of all jobs, with a guard where something is forbidden. Raises ValueError where it decodes nothing."""
    model = load_model(args)
    if model.decoder is None:
        raise ValueError("a batch writes videos, and there is no decoder; choose one with --decoder")
    if args.forbid is None:
        return model
    from fkv.search.forbidden import guarded

    return guarded(model, args.forbid)


def _folder(path: Path, model: VideoModel, args: argparse.Namespace) -> Folder:
    """A folder of videos, whose frames are to the last bit those of streams one by one where nothing is shared."""
    from fkv.batch.folder import Folder

    decoder = "own" if args.decoder in (None, Setup().decoder) else args.decoder
    return Folder(path, model, args.rows == 1 and not args.share, args.forbid, decoder)


def _so_far(ended: Ended, jobs: Sequence[Job]) -> str:
    return f"{len(ended.records)} of {len(jobs)} jobs; the same command goes on from there"


def _generate(
    args: argparse.Namespace,
    model: VideoModel,
    folder: Folder,
    roots: Sequence[Claim],
    budget: int,
    ended: Ended,
    bar: tqdm,
) -> None:
    """Generate a part of the prefix tree, and note in `ended` what has ended."""
    from fkv.batch.run import Batch, Made
    from fkv.search.forbidden import Forbidden

    def fail(name: str, error: Exception) -> None:
        ended.errors[name] = str(error) or type(error).__name__
        bar.write(f"{name} failed: {ended.errors[name]}", file=sys.stderr)

    def say(sentence: str) -> None:
        ended.said.append(sentence)
        bar.write(sentence, file=sys.stderr)

    batch = Batch(model, roots, args.rows, budget, args.share, say)
    for each in batch.run():
        ended.computed, ended.kv_bytes_peak = batch.computed, batch.kv_bytes_peak
        if isinstance(each, Made):
            bar.update()
            continue
        name = each.path.job.name
        if each.error:
            fail(name, each.error)
            continue
        try:
            ended.records[name] = folder.add(each)
        except (Forbidden, RuntimeError) as error:  # as where a decoder runs out of memory
            fail(name, error)


def _spread(
    args: argparse.Namespace, folder: Folder, roots: Sequence[Claim], budget: int, ended: Ended, bar: tqdm
) -> None:
    """Generate the roots of the prefix tree, each with all below it, on the devices of a Ray cluster."""
    from fkv.parallel.ray_map import over_ray

    groups = [(pickle.dumps(args), root.node.paths, budget) for root in roots]
    for found, videos in over_ray(_group, groups, args.ray, args.device):
        for name, record in found.records.items():
            folder.receive(record, videos[name])
            ended.records[name] = record
        for sentence in (*found.said, *(f"{name} failed: {error}" for name, error in found.errors.items())):
            bar.write(sentence, file=sys.stderr)
        ended.errors |= found.errors
        ended.computed += found.computed
        ended.kv_bytes_peak = max(ended.kv_bytes_peak, found.kv_bytes_peak)
        bar.update(found.computed)


def _group(options: bytes, paths: Sequence[JobPath], budget: int) -> tuple[Ended, dict[str, bytes]]:
    """Generate jobs with a common past in a process of a cluster. Returns what has ended, and the videos."""
    from fkv.batch import plan
    from fkv.batch.memory import Memory, claims

    args, model = pickle.loads(options), _loaded(options)
    ended = Ended()
    with TemporaryDirectory() as place, open(os.devnull, "w") as silent, tqdm(file=silent) as bar:
        folder = _folder(Path(place), model, args)
        roots = claims(plan.grow(paths), Memory(model, args.share), budget)
        _generate(args, model, folder, roots, budget, ended, bar)
        return ended, {name: (folder.path / record["video"]).read_bytes() for name, record in ended.records.items()}


@lru_cache(maxsize=1)
def _loaded(options: bytes) -> VideoModel:
    """The model of these arguments, kept for the next group."""
    import torch

    torch.set_num_threads(1)
    return _model(pickle.loads(options))


def _size(text: str) -> int:
    """Bytes from `2GiB`, `500 MB` or a number. Raises ValueError for anything else."""
    match = SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    base = 1024 if unit.endswith("I") else 1000
    size = int(float(match[1]) * base ** (" KMGT".index(unit[0]) if unit else 0)) if match else 0
    if not size:
        raise ValueError(f"--kv-budget is a size such as 2GiB or 500MB, not {text!r}")
    return size


def _draw_sheet(videos: Sequence[Path], longest: int, fps: int, target: Path) -> None:
    """Draw frames of every video at the same moments, up to frame `longest`; white where one has ended."""
    import numpy as np

    from fkv.analysis.evaluation_plots import filmstrips

    if not videos:
        return
    moments = np.linspace(0, longest - 1, SHEET_FRAMES).round().astype(int).tolist()
    strips = [_frames_at(video, moments) for video in videos]
    filmstrips([video.stem for video in videos], strips, [at / fps for at in moments], target)


def _frames_at(video: Path, moments: Sequence[int]) -> np.ndarray:
    """The frames of a video with these numbers, white where it has ended; no others are held."""
    import numpy as np

    from fkv.video import read_frames

    found = {at: frame for at, frame in enumerate(read_frames(video)) if at == 0 or at in moments}
    white = np.full_like(found[0], 255)
    return np.stack([found.get(at, white) for at in moments])
