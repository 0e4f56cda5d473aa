"""python -m fkv models: list the models."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`fkv models` has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the models."""
    from fkv.models import registry

    print(registry.table())
    return 0
