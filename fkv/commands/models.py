"""python -m fkv models: what models there are."""

from __future__ import annotations

import argparse

from fkv.models import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    """Print them."""
    print(registry.table())
    return 0
