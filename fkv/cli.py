"""python -m fkv: streams, comparisons and measurements from the command line. JSON to stdout or a file, progress to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from importlib import import_module

from tqdm import tqdm

from . import __version__, parity, policies, roles
from .compare import compare
from .models import registry
from .models.base import VideoModel
from .output import emit, outputs
from .overlap import Overlap, add_overlap, check_overlap
from .probe import FrameMassProbe
from .report import stream_record
from .stream import MAX_SEED, Chunk, Stream, check_chunks, check_prompt, check_seed
from .video import Mp4Writer

PROMPT = "a red ball bouncing over the hills at sunset"


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    registry.add_arguments(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to use instead of the model's own")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("--prompt", default=PROMPT, help=f"what the video shows (default: {PROMPT!r})")
    parser.add_argument("--chunks", type=int, default=14, help="how many chunks to generate (default: 14)")
    parser.add_argument("--seed", type=int, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def _load(args: argparse.Namespace) -> tuple[VideoModel, roles.HeadRoles | None]:
    override = roles.load(args.roles) if args.roles else None
    model = registry.chosen(args)
    if override:
        override.check(model.transformer.layers, model.transformer.heads)
    return model, override


def at_chunk(text: str, example: str = "5:forcing-kv or 5:a blue star") -> tuple[int, str]:
    """A chunk number and what comes with it, from CHUNK:WHAT. Raises ValueError, with an example, for anything else."""
    chunk, colon, what = text.partition(":")
    if not colon or not chunk.isdecimal() or not what:
        raise ValueError(f"{text!r} should be written CHUNK:WHAT, as in {example}")
    return int(chunk), what


def _hint(model: VideoModel, prompt: str) -> None:
    for sentence in model.hints(prompt):
        print(f"hint: {sentence}", file=sys.stderr)


def stream(args: argparse.Namespace) -> int:
    """Generate one stream; write video and report."""
    check_prompt(args.prompt), check_seed(args.seed), check_chunks(args.chunks), check_overlap(args)
    policy = policies.parse(args.policy)
    switches = [(chunk, policies.parse(what)) for chunk, what in map(at_chunk, args.switch)]
    prompts = [(chunk, check_prompt(what)) for chunk, what in map(at_chunk, args.say)]
    for chunk, _ in (*switches, *prompts):
        if chunk >= args.chunks:
            raise ValueError(f"chunk {chunk} is not part of a stream of {args.chunks} chunks, which are counted from 0")
    if args.recache and not prompts:
        raise ValueError("--recache goes with another prompt; name one with --say, as in --say 7:'a blue star'")
    out, report, record = outputs(args, "out", "json", "record/")
    model, override = _load(args)
    _hint(model, args.prompt)
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
        from analysis.record import Run, save, settings_of

        save(Run(settings_of(live), tuple(made), tuple(masses), live.roles), record)
    emit(stream_record(made, model, args.seed, args.device), report)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Run several policies interleaved on the same noise."""
    check_prompt(args.prompt), check_seed(args.seed), check_chunks(args.chunks)
    chosen = [policies.parse(text) for text in policies.split(args.policies)]
    [report] = outputs(args, "json")
    model, override = _load(args)
    _hint(model, args.prompt)
    count = len(chosen) + all(policy.name != "full" for policy in chosen)
    with tqdm(total=count * args.chunks, unit="chunk", file=sys.stderr) as bar:
        result = compare(model, chosen, args.prompt, args.seed, args.chunks, override, progress=bar.update)
    emit(result, report)
    for label, own in result["policies"].items():
        print(
            f"{label:>18}: denoise {own['fps_denoise']:6.1f} FPS, end to end {own['fps_end_to_end']:6.1f} FPS, "
            f"{own['ratio_denoise']['median']:.2f}x full's speed (median), {own['kv_bytes_peak'] / 1e6:.2f} MB KV",
            file=sys.stderr,
        )
    return 0


def run_parity(args: argparse.Namespace) -> int:
    """Replay golden data and report every difference."""
    [target] = outputs(args, "json")
    report = parity.check(args.folder)
    emit(report, target)
    for name, run in report["runs"].items():
        for what, result in run.items():
            for part, value in result.items() if "ok" not in result else ((None, result),):
                worst = f"max {value['max']:.2e}" if "max" in value else ""
                print(f"{'ok ' if value['ok'] else 'BAD'}  {name:>10}  {' '.join(filter(None, (what, part))):<48} {worst}", file=sys.stderr)
    print("parity: ok" if report["ok"] else "parity: differences beyond tolerance", file=sys.stderr)
    return 0 if report["ok"] else 1


def list_policies(args: argparse.Namespace) -> int:
    """What cache policies there are and their parameters."""
    for policy in policies.POLICIES.values():
        paper = f"  [{policy.paper}]" if policy.paper else ""
        print(f"{policy.name:>16}  {policy.help}{paper}")
        if own := policies.defaults(policy):
            print(f"{'':>16}  parameters: {', '.join(own)}")
    print("{:>16}  with any of them: {}".format(*policies.FOR_ALL))
    return 0


def list_models(args: argparse.Namespace) -> int:
    """What models there are."""
    print(registry.table())
    return 0


ELSEWHERE = {
    "profile": ("analysis.profile", "score a model's heads and give them roles"),
    "eval": ("analysis.evaluate", "does it show the prompt: adherence by the toy-world oracle, discontinuity, drift, speed, memory"),
    "fit": ("fkv.fit", "what a real model needs in memory, and what would fit"),
    "bench": ("fkv.bench", "measure speed and memory; random weights will do"),
    "analyze": ("analysis.export", "draw the figures of a recorded run"),
    "surgery": ("analysis.surgery", "flip the role of heads or silence them, and see what that changes"),
}
"""Commands that live with what they do, as `add_arguments` and `run`; imported only when they are called."""


def _parser(called: Collection[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fkv", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], arguments: Callable[[argparse.ArgumentParser], None], help: str) -> None:
        command = commands.add_parser(name, help=help, description=help)
        arguments(command)
        command.set_defaults(run=run)

    def stream_arguments(command: argparse.ArgumentParser) -> None:
        _run_arguments(command)
        command.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
        command.add_argument("--out", metavar="FILE", help="write the video there as MP4")
        command.add_argument("--record", metavar="DIR", help="write the raw record there, attention mass included, for `fkv analyze`")
        command.add_argument(
            "--switch", action="append", default=[], metavar="CHUNK:POLICY", help="go on with another policy from that chunk on"
        )
        command.add_argument(
            "--say", action="append", default=[], metavar="CHUNK:PROMPT", help="go on with another prompt from that chunk on"
        )
        command.add_argument("--recache", action="store_true", help="at --say, recompute the held frames under the new prompt")
        add_overlap(command)

    def compare_arguments(command: argparse.ArgumentParser) -> None:
        _run_arguments(command)
        command.add_argument(
            "--policies", default="full,forcing-kv", help="comma-separated (default: full,forcing-kv); full is added when missing"
        )

    def parity_arguments(command: argparse.ArgumentParser) -> None:
        command.add_argument("folder", help="a folder with golden data: meta.json, heads.json and safetensors files")
        command.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")

    for name, (module, help) in ELSEWHERE.items():
        if name in called:
            command = import_module(module)
            add(name, command.run, command.add_arguments, help)
        else:
            commands.add_parser(name, help=help)
    nothing: Callable[[argparse.ArgumentParser], None] = lambda command: None  # noqa: E731
    add("stream", stream, stream_arguments, "generate one stream; write video and report")
    add("compare", run_compare, compare_arguments, "run policies interleaved on the same noise and compare them with full")
    add("parity", run_parity, parity_arguments, "replay golden data of the official implementation and report every difference")
    add("policies", list_policies, nothing, "list the cache policies and their parameters")
    add("models", list_models, nothing, "list the models")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a check that failed, 2 for bad input; prints sentences, never tracebacks."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv[:1]).parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has gone; the rest is flushed to nobody
        return 0
    except ValueError as error:
        print(f"fkv {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fkv {args.command}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fkv {args.command}: stopped", file=sys.stderr)
        return 130
