"""python -m fkv: streams, comparisons and measurements from the command line. JSON to stdout or a file, progress to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from importlib import import_module

from . import __version__

COMMANDS = {
    "stream": ("fkv.commands.stream", "generate one stream; write video and report"),
    "compare": ("fkv.commands.compare", "run policies interleaved on the same noise and compare them with full"),
    "bench": ("fkv.bench", "measure speed and memory; random weights will do"),
    "eval": ("analysis.evaluate", "does it show the prompt: adherence by the toy-world oracle, discontinuity, drift, speed, memory"),
    "profile": ("analysis.profile", "score a model's heads and give them roles"),
    "surgery": ("analysis.surgery", "flip the role of heads or silence them, and see what that changes"),
    "analyze": ("analysis.export", "draw the figures of a recorded run"),
    "fit": ("fkv.commands.fit", "what a real model needs in memory, and what would fit"),
    "parity": ("fkv.commands.parity", "replay golden data of the official implementation and report every difference"),
    "policies": ("fkv.commands.policies", "list the cache policies and their parameters"),
    "models": ("fkv.commands.models", "list the models"),
}
"""Every command, the module with its `add_arguments` and `run`, imported only when it is called, and what it does."""


def _parser(called: Collection[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fkv", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, help) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        if name in called:
            found = import_module(module)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has gone; the rest is flushed to nobody
        return 0
    except ValueError as error:
        print(f"fkv {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"fkv {args.command}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fkv {args.command}: stopped", file=sys.stderr)
        return 130
