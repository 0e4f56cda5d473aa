"""python -m fkv: streams, comparisons and measurements from the command line. JSON to stdout or a file, progress to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from importlib import import_module

from fkv import __version__

COMMANDS = {
    "stream": "generate one stream; write video and report",
    "compare": "run policies interleaved on the same noise and compare them with full",
    "bench": "measure speed and memory; random weights will do",
    "eval": "does it show the prompt: adherence by the toy-world oracle, discontinuity, drift, speed, memory",
    "profile": "score a model's heads and give them roles",
    "surgery": "flip the role of heads or silence them, and see what that changes",
    "analyze": "draw the figures of a recorded run",
    "fit": "what a real model needs in memory, and what would fit",
    "parity": "replay golden data of the official implementation and report every difference",
    "policies": "list the cache policies and their parameters",
    "models": "list the models",
}
"""What every command does. Each is a module of `fkv.commands` with `add_arguments` and `run`, imported only when it is called."""


def _parser(called: Collection[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fkv", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        if name in called:
            found = import_module(f"{__package__}.{name}")
            found.add_arguments(command)
            command.set_defaults(run=found.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a check that failed, 2 for bad input; prints sentences, never tracebacks."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv[:1]).parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # whoever read has gone; the rest is flushed to nobody
        return 0
    except ValueError as error:
        print(f"fkv {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"fkv {args.command}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"fkv {args.command}: stopped", file=sys.stderr)
        return 130
