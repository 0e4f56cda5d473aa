"""python -m fkv board: cache rules on one protocol, with intervals over prompts and what each costs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .model_options import add_device, add_precision, add_spread
from .output import check_ending, emit, outputs

if TYPE_CHECKING:
    from fkv.board.result import Result

CLIP_CRF = 30  # of the videos that ship with a board, which are many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv board`."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    run = parts.add_parser("run", help="generate and measure the videos of a board; goes on from what is finished")
    run.add_argument("spec", help="a file of TOML: model, prompts, seeds, seconds, rules; see docs/board.md")
    run.add_argument("--out", required=True, metavar="DIR", help="folder for records, videos and results")
    add_device(run)
    add_precision(run)
    run.add_argument(
        "--features",
        default="layout",
        metavar="NAME",
        help="what likeness is measured by: layout (colours of a grid, no weights), or a vision model of the Hub such "
        "as facebook/dinov2-small, or the folder of one (default: layout)",
    )
    run.add_argument(
        "--videos",
        choices=("none", "first", "all"),
        default="first",
        help="which videos to keep as MP4; a video to keep whose file is missing is generated again, even if its "
        "record is there (default: first)",
    )
    run.add_argument(
        "--recall", action="store_true", help="also measure what returns after it left the picture, as fkv eval does"
    )
    add_spread(run)

    show = parts.add_parser("show", help="print a board, or write it as a table; limits leave rules out")
    show.add_argument("folder", nargs="?", help="results of fkv board run (default: the boards that ship)")
    show.add_argument("--track", choices=("as released", "same budget", "truth"), help="only rules of this track")
    show.add_argument("--by", default="", metavar="MEASURE", help="best rules first, by a measure such as adherence")
    show.add_argument("--under-gb", type=float, help="only rules whose peak memory is at most this, in 10^9 bytes")
    show.add_argument("--fps", type=float, help="only rules with at least so many video frames per second")
    show.add_argument("--frames", type=float, help="only rules whose denoising reads at most so many latent frames")
    show.add_argument("--seeds", type=int, nargs="+", metavar="N", help="measures of the videos of these seeds alone")
    show.add_argument("--table", metavar="FILE", help="also write a Markdown table there")
    show.add_argument("--csv", metavar="FILE", help="also write one line per rule there")
    show.add_argument("--videos-csv", metavar="FILE", help="also write one line per video there")
    show.add_argument("--json", metavar="FILE", help="write the rows there instead of to stdout")

    add = parts.add_parser("add", help="check results and put them beside those that ship, as a pull request does")
    add.add_argument("results", nargs="+", metavar="FILE", help="one JSON file per rule, as fkv board run writes them")
    add.add_argument("--to", metavar="DIR", help="folder of boards (default: assets/board)")

    vbench = parts.add_parser("vbench", help="write the command that scores a board's videos by VBench-Long")
    vbench.add_argument("folder", help="of fkv board run --videos all")
    vbench.add_argument("--repository", default="VBench", metavar="DIR", help="of VBench's code (default: VBench)")
    vbench.add_argument("--read", action="store_true", help="put the scores that lie in FOLDER/vbench into the results")


def run(args: argparse.Namespace) -> int:
    """Run a part of the command. Raises ValueError with a sentence for the user."""
    parts = {"run": _run, "show": _show, "add": _add, "vbench": _vbench}
    return parts[args.part](args)


def _run(args: argparse.Namespace) -> int:
    from fkv.board import run as board
    from fkv.board import table
    from fkv.board.spec import read_spec

    if not 1 <= args.workers <= 64:
        raise ValueError(f"--workers must be 1 to 64, it is {args.workers}")
    (out,) = outputs(args, "out/")
    setting = board.Setting(
        args.device, args.precision, args.features, args.workers, args.ray, args.videos, args.recall
    )
    assert out is not None  # it is required
    found = board.run(read_spec(args.spec), out, setting)
    print(table.markdown(table.rows(found)), file=sys.stderr)
    print(f"results: {out / 'results'}; put them on a board with fkv board add", file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    from fkv.board import table
    from fkv.board.result import load_folder, of_seeds
    from fkv.board.run import PLAN, RESULTS, unfinished

    target, page, sheet, videos = outputs(args, "json", "table", "csv", "videos_csv")
    check_ending("table", page, ".md")
    check_ending("csv", sheet, ".csv")
    check_ending("videos-csv", videos, ".csv")
    folder = _boards(args.folder)
    own = (folder / RESULTS).is_dir()
    if (folder / PLAN).exists() and not own:
        raise ValueError(f"no prompt in {folder} is finished by all rules yet; fkv board run goes on")
    results = load_folder(folder / RESULTS if own else folder)
    if not results:
        raise ValueError(f"there are no results in {folder}; make some with fkv board run")
    sentence = unfinished(folder, results)
    if args.seeds:
        results = [of_seeds(result, args.seeds) for result in results]
    rows = table.chosen(table.rows(results), args.by, args.track or "", args.under_gb, args.fps, args.frames)
    if not rows:
        raise ValueError("no rule is within these limits; allow more memory, fewer frames per second or more frames")
    shown = {(row["board"], row["policy"]) for row in rows}
    results = [result for result in results if (result.protocol.name, result.policy) in shown]
    text = table.markdown(rows)
    print(text, file=sys.stderr)
    if sentence:
        print(sentence, file=sys.stderr)
    for file, written in ((page, text), (sheet, table.spreadsheet(rows)), (videos, table.videos_csv(results))):
        if file:
            file.write_text(written, encoding="utf-8")
    emit({"rows": rows}, target)
    return 0


def _add(args: argparse.Namespace) -> int:
    from fkv.board import result as results
    from fkv.board.run import unfinished
    from fkv.video import ENDING, Mp4Writer, read_frames

    boards = _boards(args.to)
    new: list[tuple[Path, Result]] = [(Path(file), results.load(file)) for file in args.results]
    before = {(each.protocol.name, each.name): each for each in results.load_folder(boards)}
    replaced = {(result.protocol.name, result.name) for _, result in new}
    there = {board: each for (board, name), each in before.items() if (board, name) not in replaced}
    for _, result in new:
        results.check_protocol(result, there.setdefault(result.protocol.name, result))
    for folder, result in {file.parent.parent: result for file, result in new}.items():
        if sentence := unfinished(folder, [result]):
            print(f"{result.protocol.name} is {sentence}, then add its results again", file=sys.stderr)
    for file, result in new:
        folder = boards / result.protocol.name
        written = results.save(result, folder)
        shown = written.with_suffix(ENDING)
        other = before.get((result.protocol.name, result.name))
        if (clip := _clip(file, result)).exists():
            with Mp4Writer(shown, result.protocol.fps, CLIP_CRF) as writer:
                for frame in read_frames(clip):
                    writer.write(frame[None])
        elif other and other.first.frames_sha256 != result.first.frames_sha256:
            shown.unlink(missing_ok=True)
        print(written, file=sys.stderr)
    return 0


def _clip(file: Path, result: Result) -> Path:
    """The video of the first prompt and seed beside a result of `fkv board run`."""
    from fkv.board.run import clip_name

    return file.parent.parent / "videos" / result.name / clip_name(result.protocol, 0, result.protocol.seeds[0])


def _vbench(args: argparse.Namespace) -> int:
    from fkv.board import vbench

    out = Path(args.folder)
    if args.read:
        for result in vbench.read(out):
            print(f"{result.policy}: scores of {len(result.videos)} videos", file=sys.stderr)
        return 0
    print("\n".join(vbench.export(out, args.repository)))
    print(f"written to {out / 'vbench.sh'}; afterwards: fkv board vbench {out} --read", file=sys.stderr)
    return 0


def _boards(folder: str | None) -> Path:
    """A folder of boards, by default the one that ships. Raises ValueError for one that is not there."""
    from fkv.resources import asset

    found = asset("board") if folder is None else Path(folder)
    if not found.is_dir():
        raise ValueError(f"there is no folder {found}")
    return found
