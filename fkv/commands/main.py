"""python -m fkv: streams, comparisons and measurements from the command line.

JSON goes to stdout or a file, progress to stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection
from importlib import import_module

from fkv import __version__

DESCRIPTION = "streams, comparisons and measurements; JSON goes to stdout or a file, progress to stderr"
# What every command does. Each is a module of fkv.commands, imported only when it is called.
COMMANDS = {
    "stream": "generate one stream; write video and report",
    "compare": "run policies interleaved on the same noise and compare them with full",
    "batch": "generate many streams from one file; what they have in common is computed once",
    "search": "try several futures of a stream, chunk by chunk, and keep the best",
    "bench": "measure speed and memory; random weights will do",
    "eval": "measure how well streams follow their prompts (by the toy world's oracle), drift, speed and memory",
    "board": "run cache rules on one protocol, and show how they compare: measures, reads, bytes, speed",
    "profile": "score a model's heads and give them roles",
    "surgery": "flip the role of heads or silence them, and see what that changes",
    "debate": "let jurors who each see a degraded part of a clip agree on what it shows",
    "analyze": "draw the figures of a recorded run",
    "fit": "count the memory that a real model needs, and say what would fit",
    "parity": "replay golden data of the authors' implementations and report every difference",
    "policies": "list the cache policies and their parameters",
    "models": "list the models",
}
OUT_OF_MEMORY = re.compile("out of memory|DefaultCPUAllocator")  # in the words of PyTorch


def _parser(called: Collection[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of those in `called`."""
    parser = argparse.ArgumentParser(prog="fkv", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name in called:
            module = import_module(f"{__package__}.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a check that failed, 2 with a sentence for bad input and too little memory."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv[:1]).parse_args(argv)
    try:
        return args.run(args)
    except BrokenPipeError:
        # the reader has closed the pipe; what is still buffered goes to /dev/null
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        print(f"fkv {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        print(f"fkv {args.command}: {error.strerror or error}{place}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        print(f"fkv {args.command}: out of memory; `fkv fit` counts what a model needs", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fkv {args.command}: stopped", file=sys.stderr)
        return 130
