"""Process settings that must be in place before torch is imported."""

import os
import signal


def prepare() -> None:
    """Set for how many turns OpenMP's threads spin before they sleep, unless the environment already does.

    GNU OpenMP's default of 300,000 costs milliseconds per loop whenever another process needs the core; with too few
    turns the threads sleep between the operations of a pass. Measurements are in assets/benchmarks/README.md.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def end_at_interrupt() -> None:
    """End at Ctrl-C with status 130 and without a word, for as long as there is nothing to put in order: imports."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def studio() -> int:
    """The command `fkv-studio`."""
    end_at_interrupt()
    from fkv.studio.launch import run

    return run()
