"""Settings of the process that must be made before torch is imported."""

import os


def prepare() -> None:
    """Set how long OpenMP's threads spin before they sleep, unless the environment says so already.

    GNU OpenMP's default of 300,000 turns costs milliseconds per loop when another process needs the core; with 1,000 the
    second thread falls asleep between the operations of a pass. Measured in assets/benchmarks/README.md.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
