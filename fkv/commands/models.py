"""python -m fkv models: list the models."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fkv models`."""
    parser.add_argument("--memory", action="store_true", help="also count what each needs on a GPU, by resolution")


def run(args: argparse.Namespace) -> int:
    """Print the models."""
    from fkv.models import listing

    print(listing.table(args.memory))
    return 0
