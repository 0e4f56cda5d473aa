"""python -m fkv bench: speed and memory, against what the same machine can do in the same run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fkv import policies
from fkv.bench import attention, models, report, streams
from fkv.bench.official import OFFICIAL
from fkv.bench.work import Ceilings, ceilings
from fkv.models import registry
from fkv.models.precision import COMPUTE, native_precision
from fkv.models.release import BASES, RESOLUTIONS
from fkv.parallel.ray_map import over_ray
from fkv.report import FPS_MEANING

from .model_options import add_device, add_overlap, add_speed, check_options
from .output import PICTURES, check_ending, emit, outputs

STREAMS = ("model", "layers", "decoder", "policies", "context", "compile", "graphs", "overlap", "ray")
UNUSED = {
    "attention": ("measures one layer", STREAMS),
    "read": ("takes what was measured before", (*STREAMS, "resolution", "precision", "attention")),
}
"""Options by which others have no effect: what they do instead, and which those are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    wan = ", ".join(BASES)

    def add(name: str, help: str, default: Any = None, **options: Any) -> None:
        shown = f"{help} (default: {default})" if default is not None else help
        parser.add_argument(name, default=default, help=shown, **options)

    add("--model", f"tiny, or one with random weights: {wan}", "tiny")
    add(
        "--resolution",
        f"of {wan} and of --attention: {', '.join(RESOLUTIONS)} or HEIGHTxWIDTH in pixels; 480p unless said otherwise",
    )
    add("--layers", f"only so many layers of {wan}", type=int)
    add("--precision", "unless said otherwise what runs in hardware: bf16, on older CPUs fp32", choices=tuple(COMPUTE))
    add(
        "--decoder",
        f"tiny: own unless said otherwise, or none; {wan}: none unless said otherwise, vae or small",
        choices=models.DECODERS,
    )
    add("--policies", "comma-separated", "full,forcing-kv")
    add(
        "--context",
        "comma-separated numbers of latent frames that a chunk attends to under full, its own included",
        "21",
    )
    add("--attention", "measure one layer instead: page cache against concatenation", action="store_true")
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
    """Context lengths from `21,42`. Raises ValueError for anything but multiples of the chunk."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or not int(part) or int(part) % frames_per_chunk:
            raise ValueError(
                f"--context takes multiples of the chunk's {frames_per_chunk} latent frames, as in 21,42,84, not {part!r}"
            )
    return list(map(int, parts))


def read(path: str) -> dict[str, Any]:
    """An earlier report. Raises ValueError when the file is missing or is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(data, dict) or not ("results" in data or "attention" in data) or "hardware" not in data:
        raise ValueError(f"{path} is not a report of fkv bench")
    return data


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _head(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    return {
        "command": shlex.join(["fkv", *sys.argv[1:]]),
        **report.surroundings(device),
        "repeats": args.repeats,
        "warmup": args.warmup,
    }


def _attention(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    height, width = models.latent_size(args.resolution or "480p")
    head, dtype = _head(args, device), COMPUTE[args.precision or native_precision(device)]
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        measured = attention.measure(height // 2, width // 2, device, dtype, args.repeats, args.warmup)
    return {**head, "dtype": _name(dtype), "kernels": report.kernel_choices(), "attention": measured}


def _streams(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    chosen, head = [policies.parse(text) for text in policies.split(args.policies)], _head(args, device)
    model = models.build(args.model, device, args.precision, args.resolution, args.layers, args.decoder)
    lengths, transformer = contexts(args.context, model.frames_per_chunk), model.transformer
    registry.speed_up(transformer, args.compile, args.graphs)
    sample, rows, best = ceilings(device, transformer.dtype), [], Ceilings(0.0, 0.0)
    with tqdm(total=len(lengths) * len(chosen) * (args.warmup + args.repeats), unit="chunk", file=sys.stderr) as bar:
        for context in lengths:
            made, seen = streams.measure(
                model, chosen, context, args.repeats, args.warmup, sample, args.overlap, bar.update
            )
            rows, best = rows + made, best.or_better(seen)
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
    return _streams(args, torch.device(args.device))


def _over_ray(args: argparse.Namespace) -> dict[str, Any]:
    """One report of context lengths that were measured on several devices of one kind. Raises ValueError for devices of several."""
    lengths = [length.strip() for length in args.context.split(",")]
    jobs = [(argparse.Namespace(**vars(args) | {"context": length}),) for length in lengths]
    made = {str(one["results"][0]["context"]): one for one in over_ray(_one, jobs, args.ray, args.device)}
    kinds = {one["hardware"]["device"] for one in made.values()}
    if len(kinds) > 1:
        raise ValueError(f"figures of different devices do not belong in one table: {', '.join(sorted(kinds))}")
    best = {name: max(one["ceilings"][name] for one in made.values()) for name in made[lengths[0]]["ceilings"]}
    rows = [row for length in lengths for row in made[length]["results"]]
    return {**made[lengths[0]], "command": shlex.join(["fkv", *sys.argv[1:]]), "ceilings": best, "results": rows}


def _check_used(args: argparse.Namespace) -> None:
    """Raises ValueError for options that would have no effect."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for option, (does, others) in UNUSED.items():
        idle = [f"--{name}" for name in others if getattr(args, name) != parser.get_default(name)]
        if getattr(args, option) and idle:
            raise ValueError(
                f"--{option} {does}, where {' and '.join(idle)} would do nothing; leave one or the other out"
            )


def run(args: argparse.Namespace) -> int:
    """Measure, or read an earlier report; print tables to stderr, write JSON. Returns 1 when outputs that must be equal are not.

    Raises ValueError for options that do not go together and for files that cannot be used.
    """
    if args.repeats < 1 or args.warmup < 1:
        raise ValueError(f"--repeats and --warmup must be at least 1, they are {args.repeats} and {args.warmup}")
    _check_used(args)
    target, drawing = outputs(args, "json", "figure")
    check_ending("figure", drawing, *PICTURES)
    registry.check_device(args.device)
    check_options(args)
    args.warmup = max(args.warmup, streams.RECORDED) if args.graphs else args.warmup
    other = read(args.against) if args.against else None
    known = read(args.read) if args.read else None
    one_layer = args.attention if known is None else "attention" in known
    if drawing and one_layer:
        raise ValueError("--figure draws the speed of streams; a report of one layer has none")
    if other:
        report.check_kinds(one_layer, other)
    if known:
        made = known
    elif args.ray:
        made = _over_ray(args)
    else:
        made = (_attention if args.attention else _streams)(args, torch.device(args.device))
    text = report.table(made)
    if args.official:
        made = {**made, "official": OFFICIAL}
        text += ["", *report.official_table(OFFICIAL)]
    try:
        if other:
            made = {**made, "against": {"file": args.against, **report.against(made, other)}}
            text += ["", *report.against_table(made["against"], Path(args.against).name)]
    finally:
        emit(made, target)
        print("\n".join(text), file=sys.stderr)
    if drawing:
        report.figure(made, drawing)
    return 0 if made.get("attention", {}).get("equal", True) else 1
