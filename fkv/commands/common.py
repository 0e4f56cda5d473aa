"""What the commands that generate have in common: which model, and which run of it."""

from __future__ import annotations

import argparse
import sys

from fkv import roles
from fkv.models.base import VideoModel
from fkv.stream import MAX_SEED, check_chunks, check_prompt, check_seed

from .model_options import add_model, load_model

PROMPT = "a red ball bouncing over the hills at sunset"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose a model and a run of it."""
    add_model(parser)
    parser.add_argument("--roles", metavar="FILE", help="head roles to use instead of the model's own")
    parser.add_argument("--prompt", default=PROMPT, help=f"what the video shows (default: {PROMPT!r})")
    parser.add_argument("--chunks", type=int, default=14, help="how many chunks to generate (default: 14)")
    parser.add_argument("--seed", type=int, default=0, help=f"0 to {MAX_SEED} (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the report there instead of to stdout")


def check_run(args: argparse.Namespace) -> None:
    """Raises ValueError for a prompt, seed or length that no stream can have."""
    check_prompt(args.prompt), check_seed(args.seed), check_chunks(args.chunks)


def load(args: argparse.Namespace) -> tuple[VideoModel, roles.HeadRoles | None]:
    """The model and the head roles that replace its own, if any; says on stderr which words of the prompt the model does not know."""
    override = roles.load(args.roles) if args.roles else None
    model = load_model(args)
    if override:
        override.check(model.transformer.layers, model.transformer.heads)
    for sentence in model.hints(args.prompt):
        print(f"hint: {sentence}", file=sys.stderr)
    return model, override
