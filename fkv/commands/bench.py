"""python -m fkv bench: speed and memory, against what the same machine can do in the same run."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fkv.files import read_json
from fkv.models.release import BASES, CHOICES, RESOLUTIONS

from .common import read_policies
from .model_options import add_device, add_overlap, add_speed, check_options
from .output import PICTURES, check_ending, emit, outputs

if TYPE_CHECKING:
    import torch

STREAMS = ("model", "layers", "decoder", "policies", "context", "compile", "graphs", "overlap", "ray")
SOURCES = ("ca2", "selection", "branches", "pasts", "rows")
"""Options that measure one claim of a source, each a module of `fkv.bench`."""
CLAIM = ("resolution", "layers", "decoder", "policies", "compile", "graphs", "overlap", "ray", "warmup", "attention")
UNUSED = {
    "attention": ("measures one layer", STREAMS),
    "ca2": ("measures recompute, full and ca2-vdm", (*CLAIM, *SOURCES[1:], "against", "official")),
    "selection": ("measures mpcache", (*CLAIM, *SOURCES[2:], "against", "official")),
    "branches": ("measures forked streams", (*CLAIM, *SOURCES[3:], "against", "official")),
    "pasts": ("measures streams that have a past in common", (*CLAIM, "rows", "against", "official")),
    "rows": ("measures passes of several rows", (*CLAIM[2:], "against", "official")),
    "read": (
        "takes what was measured before",
        (*STREAMS, "resolution", "precision", "attention", "repeats", "warmup", *SOURCES),
    ),
}
"""Options that leave others without effect: what they do instead, and the others."""
CONTEXT = {"streams": "21", "ca2": "84", "selection": "84", "branches": "42", "pasts": "21", "rows": "42"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fkv bench`."""
    wan = ", ".join(BASES)

    def add(name: str, text: str, default: Any = None, **options: Any) -> None:
        shown = f"{text} (default: {default})" if default is not None else text
        parser.add_argument(name, default=default, help=shown, **options)

    add("--model", f"tiny, or one with random weights: {wan}", "tiny")
    add(
        "--resolution",
        f"of {wan} and of --attention: {', '.join(RESOLUTIONS)} or HEIGHTxWIDTH in pixels (default: 480p)",
    )
    add("--layers", f"only this many layers of {wan}", type=int)
    add(
        "--precision",
        "of the model (default: what the device multiplies in hardware, bf16 or on older CPUs fp32)",
        choices=CHOICES["precision"],
    )
    add(
        "--decoder",
        f"own (default) or none for tiny; none (default), vae, small or light for {wan}",
        choices=("own", *CHOICES["decoder"]),
    )
    policies = "comma-separated; all stands for those that fit the model, all,-NAME for all but one"
    add("--policies", policies, "full,forcing-kv")
    add(
        "--context",
        "comma-separated numbers of latent frames that a chunk attends to under full, the current chunk included "
        f"(default: {CONTEXT['streams']}; {CONTEXT['ca2']} with --ca2 and --selection, {CONTEXT['branches']} with "
        f"--branches and --rows, {CONTEXT['pasts']} with --pasts, which take one)",
    )
    add("--attention", "measure one layer instead: page cache against concatenation", action="store_true")
    add("--ca2", "measure what one cache for all steps saves: seconds by chunk, bytes by steps", action="store_true")
    add(
        "--selection",
        "measure mpcache: keys read, seconds of choosing, PSNR to full, overlap of choices; --repeats counts seeds",
        action="store_true",
    )
    add(
        "--branches",
        "measure forked streams: bytes with pages copied and shared, passes together and one by one",
        action="store_true",
    )
    add(
        "--pasts",
        "measure streams that have a past in common: each alone, the past once, and in rows",
        action="store_true",
    )
    add("--rows", "measure several rows of a pass: one pass for all or a pass for each", action="store_true")
    add("--repeats", "interleaved rounds that count", 5, type=int)
    add("--warmup", "rounds before them that do not count", 1, type=int)
    add_device(parser)
    add_speed(parser)
    add_overlap(parser)
    add(
        "--ray",
        "measure context lengths on the devices of a Ray cluster; `local` starts one on this machine",
        metavar="ADDRESS",
    )
    add("--read", "take an earlier report instead of measuring", metavar="FILE")
    add("--against", "compare with an earlier report", metavar="FILE")
    add("--official", "print the figures of the paper beside ours, labelled by hardware", action="store_true")
    add("--figure", "draw speed and memory there (png, svg or pdf)", metavar="FILE")
    add("--json", "write the report there instead of to stdout", metavar="FILE")


def contexts(text: str, frames_per_chunk: int) -> list[int]:
    """Read context lengths such as `21,42`. Raises ValueError for anything but multiples of the chunk."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or not int(part) or int(part) % frames_per_chunk:
            raise ValueError(
                f"--context takes multiples of the chunk's {frames_per_chunk} latent frames, as in 21,42,84, "
                f"not {part!r}"
            )
    return list(map(int, parts))


MAX_REPORT = 4 << 20  # bytes of an earlier report


def read(path: str) -> dict[str, Any]:
    """Read an earlier report. Raises ValueError for a missing file and one that is no report."""
    try:
        data = read_json(path, MAX_REPORT)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        _table(data)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise ValueError(f"{path} is not a report of fkv bench, or a damaged one") from None
    return data


def _claim_in(measured: dict[str, Any]) -> str | None:
    """The claim that a report is of, None for streams and one layer."""
    return next((name for name in SOURCES if name in measured), None)


def _table(measured: dict[str, Any]) -> list[str]:
    """Format a report as lines for the terminal."""
    from fkv.bench import report

    if (claim := _claim_in(measured)) is None:
        return report.table(measured)
    found = import_module(f"fkv.bench.{claim}").table(measured[claim])
    return [f"{measured['model']}; {measured['hardware']['device']}", *found]


def _name(dtype: torch.dtype) -> str:
    """A type as in bfloat16."""
    return str(dtype).removeprefix("torch.")


def _head(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The part of a report that says where and how it was measured."""
    from fkv.bench import report

    return {
        "command": shlex.join(["fkv", *sys.argv[1:]]),
        **report.surroundings(device),
        "repeats": args.repeats,
        "warmup": args.warmup,
    }


def _attention(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure one layer."""
    import torch

    from fkv.bench import attention, models, report
    from fkv.models.precision import COMPUTE, native_precision

    height, width = models.latent_size(args.resolution or "480p")
    head = _head(args, device)
    dtype = COMPUTE[args.precision or native_precision(device)]
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        measured = attention.measure(height // 2, width // 2, device, dtype, args.repeats, args.warmup)
    return {**head, "dtype": _name(dtype), "kernels": report.kernel_choices(), "attention": measured}


def _claim(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure the claim of a source, by the module of `fkv.bench` with its name."""
    import torch

    from fkv import policies
    from fkv.bench import models

    bench = import_module(f"fkv.bench.{name}")
    device = torch.device(args.device)
    head = _head(args, device)
    model = models.build(args.model, device, args.precision, args.resolution, args.layers)
    [context, *more] = contexts(args.context or CONTEXT[name], model.frames_per_chunk)
    if more:
        raise ValueError(f"--{name} takes one --context, not {args.context}")
    for text in getattr(bench, "POLICIES", ()):
        policies.check_fit(policies.parse(text), model.geometry, model.roles)
    total = bench.chunks_of(model, context, args.repeats)
    with tqdm(total=total, unit="chunk", file=sys.stderr) as bar:
        measured = bench.measure(model, context, args.repeats, progress=bar.update)
    precision = args.precision or model.precision
    sizes = {"layers": model.transformer.layers, "latent": list(model.latent), "precision": precision}
    return {**head, "model": model.name, **sizes, "meaning": bench.MEANINGS, name: measured}


def _report_claim(args: argparse.Namespace, measured: dict[str, Any], name: str, target: Path | None) -> None:
    """Print and write the report of a claim."""
    emit(measured, target)
    print("\n".join(_table(measured)), file=sys.stderr)
    if args.figure:
        import_module(f"fkv.bench.{name}").figure(measured, Path(args.figure))


def _streams(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure streams of every policy at every context length."""
    from fkv import policies
    from fkv.bench import models, report, streams
    from fkv.bench.work import Ceilings, ceilings
    from fkv.models import registry
    from fkv.report import FPS_MEANING

    head = _head(args, device)
    build = cache(lambda: models.build(args.model, device, args.precision, args.resolution, args.layers, args.decoder))
    chosen = [policies.parse(text) for text in read_policies(args.policies, build)]
    model = build()
    transformer = model.transformer
    lengths = contexts(args.context or CONTEXT["streams"], model.frames_per_chunk)
    registry.speed_up(transformer, args.compile, args.graphs)
    sample = ceilings(device, transformer.dtype)
    rows: list[dict[str, Any]] = []
    best = Ceilings(0.0, 0.0)
    with tqdm(total=len(lengths) * len(chosen) * (args.warmup + args.repeats), unit="chunk", file=sys.stderr) as bar:
        for context in lengths:
            measured, seen = streams.measure(
                model, chosen, context, args.repeats, args.warmup, sample, args.overlap, bar.update
            )
            rows += measured
            best = best.or_better(seen)
    return {
        **head,
        "model": model.name,
        "layers": transformer.layers,
        "latent": list(model.latent),
        "dtype": _name(transformer.dtype),
        "precision": args.precision or _name(transformer.dtype),
        "steps": len(model.schedule.sigmas),
        "decoder": "none" if model.decoder is None else args.decoder or "own",
        **({"compiled": True} if args.compile else {}),
        **({"graphs": True} if args.graphs else {}),
        **({"overlap": True} if args.overlap else {}),
        "kernels": report.kernel_choices(),
        "ceilings": {"tflops": best.flops / 1e12, "gbps": best.bandwidth / 1e9},
        "meaning": {**FPS_MEANING, **report.MEANINGS},
        "results": rows,
    }


def _one(args: argparse.Namespace) -> dict[str, Any]:
    """Measure streams on a device of a cluster."""
    import torch

    return _streams(args, torch.device(args.device))


def _over_ray(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every context length on a device of its own and join the reports.

    Raises ValueError for contexts that are no multiples of the chunk, and where the devices differ in kind.
    """
    from fkv.models.base import VideoModel
    from fkv.parallel.ray_map import over_ray

    lengths = list(dict.fromkeys(contexts(args.context or CONTEXT["streams"], VideoModel.frames_per_chunk)))
    jobs = [(argparse.Namespace(**vars(args) | {"context": str(length)}),) for length in lengths]
    reports = {one["results"][0]["context"]: one for one in over_ray(_one, jobs, args.ray, args.device)}
    first = reports[lengths[0]]
    kinds = {one["hardware"]["device"] for one in reports.values()}
    if len(kinds) > 1:
        raise ValueError(f"figures of different devices do not belong in one table: {', '.join(sorted(kinds))}")
    best = {name: max(one["ceilings"][name] for one in reports.values()) for name in first["ceilings"]}
    rows = [row for length in lengths for row in reports[length]["results"]]
    return {**first, "command": shlex.join(["fkv", *sys.argv[1:]]), "ceilings": best, "results": rows}


def _check_used(args: argparse.Namespace) -> None:
    """Raise ValueError for options that would have no effect."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for option, (does, others) in UNUSED.items():
        idle = [f"--{name}" for name in others if getattr(args, name) != parser.get_default(name)]
        if getattr(args, option) and idle:
            raise ValueError(
                f"--{option} {does}, where {' and '.join(idle)} would do nothing; leave one or the other out"
            )


def run(args: argparse.Namespace) -> int:
    """Measure, or read an earlier report; print tables to stderr and write JSON.

    Returns:
        1 where outputs differ that must be equal, otherwise 0.

    Raises:
        ValueError: Options that do not go together, or a file that cannot be used.
    """
    import torch

    from fkv.bench import report, streams
    from fkv.bench.official import OFFICIAL
    from fkv.models import registry

    if args.repeats < 1 or args.warmup < 1:
        raise ValueError(f"--repeats and --warmup must be at least 1, they are {args.repeats} and {args.warmup}")
    _check_used(args)
    target, drawing = outputs(args, "json", "figure")
    check_ending("figure", drawing, *PICTURES)
    registry.check_device(args.device)
    check_options(args)
    args.warmup = max(args.warmup, streams.CAPTURE_CHUNKS) if args.graphs else args.warmup
    other = read(args.against) if args.against else None
    known = read(args.read) if args.read else None
    claim = _claim_in(known) if known else next((name for name in SOURCES if getattr(args, name)), None)
    if claim and (args.official or args.against):
        raise ValueError(f"--official and --against are for streams; {args.read} is a report of --{claim}")
    if claim:
        _report_claim(args, known or _claim(args, claim), claim, target)
        return 0
    one_layer = args.attention if known is None else "attention" in known
    if drawing and one_layer:
        raise ValueError("--figure draws the speed of streams; a report of one layer has none")
    if other:
        report.check_kinds(one_layer, other)
    if known:
        measured = known
    elif args.ray:
        measured = _over_ray(args)
    else:
        measure = _attention if args.attention else _streams
        measured = measure(args, torch.device(args.device))
    text = _table(measured)
    if args.official:
        measured = {**measured, "official": OFFICIAL}
        text += ["", *report.official_table(OFFICIAL)]
    try:
        if other:
            measured = {**measured, "against": {"file": args.against, **report.against(measured, other)}}
            text += ["", *report.against_table(measured["against"], Path(args.against).name)]
    finally:
        emit(measured, target)
        print("\n".join(text), file=sys.stderr)
    if drawing:
        report.figure(measured, drawing)
    return 0 if measured.get("attention", {}).get("equal", True) else 1
