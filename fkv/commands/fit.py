"""python -m fkv fit: count the memory that a real model needs, and say what would fit."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys

from .model_options import add_model, sampling_of, setup_of
from .output import emit, outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv fit`."""
    add_model(parser)
    parser.add_argument("--policy", help="NAME or NAME:key=value,... (default: the cache that the model begins with)")
    parser.add_argument("--chunks", type=int, default=21, help="length of the stream (default: 21)")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="ask for a GPU with that much free instead of this machine's"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the table there too; - writes it to stdout, and the text to stderr"
    )


def run(args: argparse.Namespace) -> int:
    """Print what a model needs. Returns 1 when it does not fit; raises ValueError with a sentence for the user."""
    from fkv.models import registry
    from fkv.models.fit import explain, fit
    from fkv.models.memory import host_memory
    from fkv.models.release import Setup
    from fkv.stream import check_chunks
    from fkv.transformer.graphs import check_graphs

    release = (
        registry.checkpoint_release(args.checkpoint, args.base, args.lora, **sampling_of(args))
        if args.checkpoint
        else registry.entry(args.model).release
    )
    if release is None:
        others = ", ".join(model.name for model in registry.MODELS.values() if model.release)
        raise ValueError(
            f"model {args.model!r} ships with the studio and is small; name one to download with --model: {others}"
        )
    if isinstance(args.steps, int):
        steps = release.schedule.with_steps(args.steps).timesteps
        release = dataclasses.replace(release, solver="renoise", timesteps=steps)  # their number is what counts
    if args.compile:
        raise ValueError("--compile makes a model faster, not smaller, and nothing runs here; leave it out")
    check_chunks(args.chunks)
    if args.memory is not None and not 0 < args.memory < math.inf:
        raise ValueError(f"--memory is a number of gigabytes above 0, not {args.memory:g}")
    [target] = outputs(args, "json")
    free = None if args.memory is None else {"device": round(args.memory * 1e9), "host": host_memory()}
    device = "cuda" if free else args.device
    if not free:
        registry.check_device(device)
    if args.graphs:
        check_graphs(device)
    found = fit(release, Setup(**setup_of(args)), args.policy, args.chunks, device, free, args.graphs)
    text = sys.stderr if args.json == "-" else sys.stdout
    print(found, "it fits" if found.fits else explain(found, device), sep="\n", file=text)
    if args.json:
        settings = {
            "model": release.name,
            **vars(found.setup),
            "policy": found.policy,
            "chunks": found.chunks,
            "device": device,
            "graphs": found.graphs,
        }
        report = {
            "needs": [dataclasses.asdict(need) for need in found.needs],
            **dataclasses.asdict(found.cache),
            "total": {where: found.total(where) for where in found.free},
            "free": found.free,
            "fits": found.fits,
        }
        emit(settings | report, target)
    return 0 if found.fits else 1
