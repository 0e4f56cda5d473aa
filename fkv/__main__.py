"""`python -m fkv` and the command `fkv`."""

from __future__ import annotations

import sys

from fkv import runtime


def run() -> int:
    """Run the command line; an interrupt ends it without a traceback."""
    runtime.prepare()
    try:
        from fkv.commands.main import main

        return main()
    except KeyboardInterrupt:
        print("fkv: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
