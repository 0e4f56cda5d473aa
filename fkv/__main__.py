"""`python -m fkv` and the command `fkv`."""

from __future__ import annotations

import signal
import sys

from fkv import runtime


def run() -> int:
    """Run the command line; an interrupt ends it without a traceback."""
    runtime.end_at_interrupt()
    runtime.prepare()
    from fkv.commands.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main()
    except KeyboardInterrupt:
        print("fkv: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
