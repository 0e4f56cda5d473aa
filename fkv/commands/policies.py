"""python -m fkv policies: list the cache policies and their parameters."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`fkv policies` has no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the policies."""
    from fkv import policies

    for policy in policies.POLICIES.values():
        paper = f"  [{policy.paper}]" if policy.paper else ""
        print(f"{policy.name:>16}  {policy.help}{paper}")
        if own := policies.defaults(policy):
            print(f"{'':>16}  parameters: {', '.join(own)}")
    print("{:>16}  with any of them: {}".format(*policies.FOR_ALL))
    return 0
