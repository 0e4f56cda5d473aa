"""Options that choose a model, where it runs and how fast; the same for every command.

Nothing here imports torch before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from fkv.models.release import BASES, CHOICES, Setup

if TYPE_CHECKING:
    from fkv.models.base import VideoModel


AUTO = "auto"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and how it runs."""
    parser.add_argument(
        "--model",
        default="tiny",
        help="a name that `fkv models` lists, or a folder of trained weights of the tiny model's form (default: tiny)",
    )
    add_device(parser)
    add_speed(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="a checkpoint of your own instead, of the base named: a file, the index of shards, or their folder",
    )
    parser.add_argument(
        "--base", choices=list(BASES), default="wan-1.3b", help="what --checkpoint is of (default: wan-1.3b)"
    )
    parser.add_argument(
        "--lora",
        action="append",
        metavar="FILE[:STRENGTH]",
        help="an adapter to merge into --checkpoint, at strength 1 unless it says another; may be repeated",
    )
    parser.add_argument(
        "--steps",
        type=_steps,
        metavar="N",
        help="N: take N of the model's denoising steps (default: all). With --checkpoint also N,N,...: which of 1000 "
        "steps, falling (default: 1000,750,500,250)",
    )
    parser.add_argument("--shift", type=float, help="shift of --checkpoint's schedule (default: 5)")
    parser.add_argument(
        "--schedule",
        metavar="T,T,...",
        help="in place of --steps and --shift, timesteps as --checkpoint is given them, such as CausVid's 1000,757,522",
    )
    parser.add_argument(
        "--frames-per-chunk",
        type=int,
        metavar="N",
        help="latent frames that --checkpoint generates at once (default: 3)",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="latent frames that --checkpoint was trained to attend to, sink and chunk included (default: all)",
    )
    parser.add_argument("--sink", type=int, metavar="N", help="first frames that --window keeps for good (default: 0)")
    for name, default in vars(Setup()).items():
        parser.add_argument(f"--{name}", choices=CHOICES[name], help=f"{SETUP_HELP[name]} (default: {default})")


SETUP_HELP = {
    "resolution": "size of a real model's video",
    "precision": "of weights and products of any model; the tiny model's default is what the device multiplies",
    "decoder": "which decoder a real model's latents go through: its VAE, a small or a light one, none",
    "text": "where a real model's text encoder runs",
}
SAMPLING = ("steps", "shift", "schedule", "frames_per_chunk", "window", "sink")


def _steps(text: str) -> int | tuple[int, ...]:
    """Read a number of steps, N of one or two digits, or steps of the table of 1000, STEP,STEP,..."""
    try:
        if text.isdecimal() and len(text) <= 2:
            return int(text)
        return tuple(int(step) for step in text.removesuffix(",0").split(","))  # a 0 stands for the context pass
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it takes a number of steps such as 2, or falling steps such as 1000,750,500,250, not {text!r:.60}"
        ) from None


def _set(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a checkpoint's sampling that were set, without how many of its steps are taken."""
    found = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    return {name: value for name, value in found.items() if name != "steps" or not isinstance(value, int)}


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return how a checkpoint of one's own is sampled, in the fields of `Release`, as far as it was set.

    Raises:
        ValueError: Options that do not go together.
    """
    found = _set(args)
    window, sink = found.pop("window", None), found.pop("sink", 0)
    if "schedule" in found:
        if found.keys() & {"steps", "shift"}:
            raise ValueError("--schedule stands in place of --steps and --shift; leave those out")
        from fkv.sampler import read_timesteps

        found["timesteps"] = read_timesteps(found.pop("schedule"))
    if window is not None:
        found["window"] = f"sliding-window:sink_frames={sink},window_frames={window}"
    elif args.sink is not None:
        raise ValueError("--sink is a part of --window; name how many frames that has")
    return found


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option where to run: on the GPU where there is one."""
    # argparse passes a default that is a string through `type`, but not for --help
    parser.add_argument(
        "--device", default=AUTO, type=_device, help="cpu or cuda (default: cuda where there is a GPU, otherwise cpu)"
    )


def _device(name: str) -> str:
    """The device to run on, for `AUTO` the best one here."""
    if name != AUTO:
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the option `--precision`."""
    parser.add_argument(
        "--precision",
        choices=CHOICES["precision"],
        help="of the model (default: what the device multiplies in hardware)",
    )


def add_spread(parser: argparse.ArgumentParser) -> None:
    """Add the options that spread jobs over processes or machines."""
    parser.add_argument(
        "--workers", type=int, default=1, help="processes; several share the machine, so speeds suffer (default: 1)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="spread over a Ray cluster instead; `local` starts one on this machine"
    )


def add_speed(parser: argparse.ArgumentParser) -> None:
    """Add the options to run the same faster."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="fuse what lies between attention calls with torch.compile; meant for cuda",
    )
    parser.add_argument(
        "--graphs",
        action="store_true",
        help="replay passes of a steady stream as CUDA graphs; needs cuda, a pass's memory again, and under forcing-kv "
        "the chunk's keys and values in every layer",
    )


def add_overlap(parser: argparse.ArgumentParser) -> None:
    """Add the option to decode beside generation."""
    parser.add_argument(
        "--overlap", action="store_true", help="decode each chunk while the next one is generated; needs cuda"
    )


def check_options(args: argparse.Namespace) -> None:
    """Check the options of `add_speed` and, where the command has it, `add_overlap`.

    Raises:
        ValueError: One of them is not available here.
    """
    from fkv.models import registry
    from fkv.parallel.overlap import check_overlap

    registry.check_speed(args.device, args.compile, args.graphs)
    if getattr(args, "overlap", False):
        check_overlap(args.device)


def load_model(args: argparse.Namespace) -> VideoModel:
    """Load the model that the options of `add_model` choose.

    Raises:
        ValueError: Options that do not go together or are not available here, or a model that cannot be loaded.
    """
    from fkv.models import registry

    setup = setup_of(args) | _chosen(args)
    registry.check_speed(args.device, args.compile, args.graphs)
    if args.checkpoint:
        model = registry.load_checkpoint(args.checkpoint, args.base, args.device, args.lora, sampling_of(args), **setup)
        model = _doubted(model)
    else:
        model = registry.load(args.model, args.device, **setup)
    for sentence in model.assumed:
        print(f"hint: {sentence}", file=sys.stderr)
    registry.speed_up(model.transformer, args.compile, args.graphs)
    return model.with_steps(args.steps) if isinstance(args.steps, int) else model


def _chosen(args: argparse.Namespace) -> dict[str, str]:
    """The policy of a command, by which a model's memory is counted; not one that other head roles may make fit."""
    policy = getattr(args, "policy", None) or AUTO
    return {} if policy.startswith(AUTO) or getattr(args, "roles", None) else {"policy": policy}


def _doubted(model: VideoModel) -> VideoModel:
    """Add to what was assumed of a checkpoint that it looks as if it was never distilled, where it does."""
    from fkv.distilled import doubt

    lent = os.environ.get("SPACES_ZERO_GPU")  # no GPU computes while a model is loaded there
    assumed = model.assumed if lent else (*model.assumed, *filter(None, [doubt(model)]))
    return dataclasses.replace(model, assumed=assumed)


def setup_of(args: argparse.Namespace) -> dict[str, str]:
    """Return the fields of `Setup` that were set.

    Raises:
        ValueError: `--lora` or a setting of its sampling without `--checkpoint`, or `--checkpoint` beside `--model`.
    """
    if args.lora and not args.checkpoint:
        raise ValueError("--lora is merged into a checkpoint of your own; name that with --checkpoint")
    if not args.checkpoint and (found := next(iter(_set(args)), None)):
        raise ValueError(
            f"--{found.replace('_', '-')} is only for a checkpoint of your own; name one with --checkpoint"
        )
    if args.checkpoint and args.model != "tiny":
        raise ValueError(f"--model {args.model} and --checkpoint are two models; leave one out")
    return {name: getattr(args, name) for name in CHOICES if getattr(args, name)}
