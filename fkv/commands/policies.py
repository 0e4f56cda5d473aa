"""python -m fkv policies: list the cache policies and their parameters."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fkv.parameters import Parameter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fkv policies`."""
    parser.add_argument("--schema", action="store_true", help="print a JSON schema of the parameters of each policy")


def run(args: argparse.Namespace) -> int:
    """Print the policies."""
    from fkv import policies

    if args.schema:
        print(json.dumps(policies.json_schema(), indent=1))
        return 0
    for policy in policies.POLICIES.values():
        paper = f"  [{policy.paper}]" if policy.paper else ""
        print(f"{policy.name:>16}  {policy.help}{paper}")
        print(f"{'':>18}reads {policy.reading}; {policies.parity(policy)}")
        if other := policies.variant_of(policy):
            print(f"{'':>18}all parameters of {other}, and")
        for parameter in policies.own_parameters(policy):
            print(_line(parameter))
    print(f"{'any of them':>16}")
    for parameter in policies.COMMON:
        print(_line(parameter))
    return 0


def _line(parameter: Parameter) -> str:
    from fkv.policies import assignment

    accepted = ", ".join(filter(None, (parameter.values, parameter.unit)))
    return f"{'':>18}{assignment(parameter.name, parameter.default)}  {parameter.help} ({accepted})"
