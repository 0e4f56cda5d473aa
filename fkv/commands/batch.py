"""python -m fkv batch: many streams from one file; what they have in common is computed once."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .common import print_hints
from .model_options import add_model, load_model
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.batch.run import Batch

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|[KMGT]i?)B?", re.IGNORECASE)
MAX_FILE_BYTES = 16 << 20
SHEET_FRAMES = 6
MAX_SHEET_ROWS = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv batch`."""
    parser.add_argument(
        "jobs",
        metavar="JOBS.jsonl",
        help='a stream a line: {"name": ..., "prompt": ..., "story": ..., "policy": ..., "seed": ..., "chunks": ...}',
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
    parser.add_argument("--sheet", metavar="FILE", help="also write a contact sheet of all videos (PNG)")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def run(args: argparse.Namespace) -> int:
    """Run a batch. Returns 1 when a job failed. Raises ValueError with a sentence for the user."""
    from fkv.batch import plan
    from fkv.batch.folder import Folder
    from fkv.batch.jobs import Path as JobPath
    from fkv.batch.jobs import read
    from fkv.batch.memory import Memory, claims
    from fkv.batch.run import Batch
    from fkv.models.memory import free_memory
    from fkv.report import device_name

    if args.rows < 1:
        raise ValueError(f"--rows must be at least 1, not {args.rows}")
    budget = _size(args.kv_budget) if args.kv_budget else None
    jobs = read(_text(args.jobs))
    out, sheet, report = outputs(args, "out/", "sheet", "json")
    assert out is not None
    check_ending("sheet", sheet, ".png")
    model = load_model(args)
    if model.decoder is None:
        raise ValueError("a batch writes videos, and there is no decoder; choose one with --decoder")
    budget = budget or free_memory(args.device)["device"] // 2
    paths = [JobPath.of(job, model) for job in jobs]
    print_hints(model, (prompt for path in paths for prompt in (path.prompt, *path.story.prompts)))
    folder = Folder(out, model, exact=args.rows == 1 and not args.share)
    records = folder.finished(jobs)
    waiting = [path for path in paths if path.job.name not in records]
    nodes = [plan.Node(0, len(path), [path]) for path in waiting] if args.alone else plan.grow(waiting)
    roots = claims(nodes, Memory(model, args.share), budget)
    computed = sum(root.node.computed for root in roots)
    asked = plan.asked(waiting)
    if records:
        print(f"{len(records)} of {len(jobs)} jobs are finished already", file=sys.stderr)
    if asked:
        one_level = plan.computed_with_one_level(nodes)
        print(
            f"{computed} of {asked} chunks to compute: {1 - computed / asked:.1%} saved "
            f"({1 - one_level / asked:.1%} where a stream may fork only once)",
            file=sys.stderr,
        )
    errors: dict[str, str] = {}
    began = time.perf_counter()
    with tqdm(total=computed, unit="chunk", file=sys.stderr) as bar:
        batch = Batch(
            model,
            roots,
            args.rows,
            budget,
            args.share,
            tick=bar.update,
            say=lambda sentence: bar.write(sentence, file=sys.stderr),
        )
        try:
            for done in batch.run():
                if done.error:
                    errors[done.path.job.name] = str(done.error) or type(done.error).__name__
                    bar.write(f"{done.path.job.name} failed: {errors[done.path.job.name]}", file=sys.stderr)
                else:
                    records[done.path.job.name] = folder.add(done)
        except KeyboardInterrupt:
            print(
                f"fkv batch: stopped after {len(records)} of {len(jobs)} jobs; the same command goes on from there",
                file=sys.stderr,
            )
            return 130
    manifest = folder.write_manifest(jobs, records, errors)
    if sheet:
        _draw_sheet([out / records[job.name]["video"] for job in jobs if job.name in records], model.fps, sheet)
    emit(
        {
            "jobs": len(jobs),
            "failed": errors,
            "manifest": str(manifest),
            "device": device_name(model.device),
            "precision": model.precision,
            "rows": args.rows,
            "pages": "shared" if args.share else "copied",
            **_figures(batch, asked, nodes, time.perf_counter() - began),
            "kv_budget": budget,
        },
        report,
    )
    return 1 if errors else 0


def _figures(batch: Batch, asked: int, nodes: list[Any], seconds: float) -> dict[str, Any]:
    """What was saved, and how fast it went. Streams that share work have no speed of their own, so none is given."""
    from fkv.batch import plan

    return {
        "timing": "shared",
        "chunks_asked": asked,
        "chunks_computed": batch.computed,
        "chunks_computed_with_one_level": plan.computed_with_one_level(nodes),
        "seconds": seconds,
        "chunks_per_second": batch.computed / seconds if batch.computed else None,
        "kv_bytes_peak": batch.kv_bytes_peak,
    }


def _text(path: str) -> str:
    """The text of the jobs file. Raises ValueError when it cannot be read."""
    from fkv.files import read_text

    try:
        return read_text(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read the jobs {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"cannot read the jobs {path}: {error}") from None


def _size(text: str) -> int:
    """Bytes from `2GiB`, `500 MB` or a number. Raises ValueError for anything else."""
    match = SIZE.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise ValueError(f"--kv-budget is a size such as 2GiB or 500MB, not {text!r}")
    unit = match[2].upper()
    base = 1024 if unit.endswith("I") else 1000
    return int(float(match[1]) * base ** (" KMGT".index(unit[0]) if unit else 0))


def _draw_sheet(videos: list[Path], fps: int, target: Path) -> None:
    """Draw frames of every video at the same moments; white where one has ended."""
    import numpy as np

    from fkv.analysis.evaluation_plots import filmstrips
    from fkv.video import read_frames

    if len(videos) > MAX_SHEET_ROWS:
        print(f"the sheet shows the first {MAX_SHEET_ROWS} of {len(videos)} videos", file=sys.stderr)
    decoded = [list(read_frames(video)) for video in videos[:MAX_SHEET_ROWS]]
    if not decoded:
        return
    longest = max(map(len, decoded))
    moments = np.linspace(0, longest - 1, SHEET_FRAMES).round().astype(int)
    strips = [
        np.stack([frames[at] if at < len(frames) else np.full_like(frames[0], 255) for at in moments])
        for frames in decoded
    ]
    titles = [video.stem for video in videos[:MAX_SHEET_ROWS]]
    filmstrips(titles, strips, [at / fps for at in moments.tolist()], target)
