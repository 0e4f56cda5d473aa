"""Process settings that must be in place before torch is imported."""

import os


def prepare() -> None:
    """Set for how many turns OpenMP's threads spin before they sleep, unless the environment already does.

    GNU OpenMP's default of 300,000 costs milliseconds per loop whenever another process needs the core; with too few
    turns the threads sleep between the operations of a pass. Measurements are in assets/benchmarks/README.md.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
