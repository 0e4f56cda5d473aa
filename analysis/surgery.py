"""Surgery on heads: change a role or take a head's history away, stream again, and measure what changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from fkv import policies
from fkv import roles as role_files
from fkv.compare import psnr
from fkv.models import registry
from fkv.models.base import VideoModel
from fkv.output import PICTURES, check_ending, emit, outputs
from fkv.policies import Policy
from fkv.policies.silenced import Head, Silenced, read_heads, write_heads
from fkv.roles import HeadRoles
from fkv.stream import MAX_SEED, Chunk, Stream, check_chunks, check_prompt, check_seed


@dataclass(frozen=True)
class Effect:
    """What an operation did. psnr : per chunk against the untouched run, in dB, None where the pictures are equal."""

    operation: Literal["flip", "silence"]
    heads: tuple[Head, ...]
    psnr: tuple[float | None, ...]
    kv_bytes: int
    kv_bytes_untouched: int

    @property
    def label(self) -> str:
        return f"{self.operation} {write_heads(self.heads, ', ')}"

    @property
    def kv_change(self) -> int:
        return self.kv_bytes - self.kv_bytes_untouched

    @property
    def worst(self) -> float | None:
        """The lowest PSNR of a chunk; None when nothing changed."""
        return min((value for value in self.psnr if value is not None), default=None)


def operate(
    model: VideoModel,
    policy: Policy,
    operations: Iterable[tuple[Literal["flip", "silence"], Sequence[Head]]],
    prompt: str,
    seed: int = 0,
    chunks: int = 7,
    roles: HeadRoles | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> Iterator[Effect]:
    """Stream once untouched, then once per operation on the same noise, and yield the effect of each.

    `flip` turns static heads dynamic and the other way round, which changes nothing under policies without roles; `silence`
    leaves heads only the current chunk. Silenced dynamic heads also leave the similarity that Forcing-KV selects segments by.
    Raises ValueError when there is no such head, no roles to flip, or no decoder to compare pictures.
    """
    check_chunks(chunks)
    if model.decoder is None:
        raise ValueError(f"{model.name} has no decoder, so there are no pictures to compare")
    roles = roles or model.roles

    def stream(policy: Policy, roles: HeadRoles | None) -> list[Chunk]:
        live = Stream(model, policy, prompt, seed, roles)
        made = []
        for _ in range(chunks):
            made.append(live.step())
            progress()
        return made

    untouched = stream(policy, roles)
    for operation, heads in operations:
        _check(model, heads)
        if operation == "silence":
            made = stream(Silenced(policy, tuple(heads)), roles)
        elif operation == "flip":
            made = stream(policy, _flipped(roles, heads))
        else:
            raise ValueError(f"there is no operation {operation!r}; there are flip and silence")
        change = tuple(psnr(before.video, after.video) for before, after in zip(untouched, made))
        yield Effect(operation, tuple(heads), change, made[-1].kv_bytes, untouched[-1].kv_bytes)


def _flipped(roles: HeadRoles | None, heads: Sequence[Head]) -> HeadRoles:
    if roles is None:
        raise ValueError("there are no head roles to flip; profile the model or name a roles file")
    for layer, head in heads:
        roles = roles.flipped(layer, head)
    return roles


def _check(model: VideoModel, heads: Sequence[Head]) -> None:
    for layer, head in heads:
        model.geometry.check_head(layer, head)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fkv surgery`."""
    registry.add_arguments(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to start from instead of the model's own")
    for name, help in (("flip", "turn static heads dynamic and the other way round"), ("silence", "leave heads only the current chunk")):
        parser.add_argument(
            f"--{name}", dest="operations", action="append", type=lambda text, name=name: (name, text), metavar="HEADS",
            help=f"{help}, as in 3.2,4.1 (LAYER.HEAD); may be repeated, each is a stream of its own",
        )  # fmt: skip
    parser.add_argument("--policy", default="forcing-kv", help="NAME or NAME:key=value,... (default: forcing-kv)")
    parser.add_argument("--prompt", help="what the video shows (default: the model's first example)")
    parser.add_argument("--seed", type=int, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    parser.add_argument("--chunks", type=int, default=7, help="chunks per stream (default: 7)")
    parser.add_argument("--json", metavar="FILE", help="also write the effects there")
    parser.add_argument("--out", metavar="FIGURE", help="also draw them there, as PNG, SVG or PDF")


def run(args: argparse.Namespace) -> int:
    """Operate on heads and print what that changes. Raises ValueError with a sentence for the user."""
    operations = list(dict.fromkeys((name, read_heads(text, ",")) for name, text in args.operations or ()))
    if not operations:
        raise ValueError("nothing to operate on; name heads with --flip or --silence, as in --flip 3.2,4.1")
    policy = policies.parse(args.policy)
    check_chunks(args.chunks), check_seed(args.seed)
    if args.prompt is not None:
        check_prompt(args.prompt)
    target, drawing = outputs(args, "json", "out")
    check_ending("out", drawing, *PICTURES)
    roles = role_files.load(args.roles) if args.roles else None
    model = registry.chosen(args)
    prompt = check_prompt(args.prompt or next(iter(model.examples), ""))
    for _, heads in operations:
        _check(model, heads)
    if any(name == "flip" for name, _ in operations) and policy.groups(model.geometry, roles or model.roles) is None:
        raise ValueError(f"policy {policy.name!r} does not go by head roles, so to flip one changes nothing; name another with --policy")
    with tqdm(total=(1 + len(operations)) * args.chunks, unit="chunk", file=sys.stderr) as bar:
        effects = list(operate(model, policy, operations, prompt, args.seed, args.chunks, roles, bar.update))
    print(table(effects))
    if target:
        settings = {"model": model.name, "policy": args.policy, "prompt": prompt, "seed": args.seed, "chunks": args.chunks}
        emit(settings | {"effects": list(map(asdict, effects))}, target)
    if drawing:
        from .figures.surgery import draw_surgery

        draw_surgery(effects, f"{model.name}, {args.policy}, seed {args.seed}: {prompt}").savefig(drawing, dpi=160)
    return 0


def table(effects: Sequence[Effect]) -> str:
    """One line per operation: PSNR of each chunk to the untouched run in dB, and the KV bytes of the last chunk."""
    rows = [
        [*("equal" if value is None else f"{value:.1f} dB" for value in effect.psnr), f"{effect.kv_bytes:,}", f"{effect.kv_change:+,}"]
        for effect in effects
    ]
    columns = [*(f"chunk {i}" for i in range(len(effects[0].psnr))), "KV bytes", "change"]
    return pd.DataFrame(rows, [effect.label for effect in effects], columns).to_string()
