"""Attack a studio of this machine: `python -m tests.load.attack`; `--short` makes few attempts and starts no programs.

Everything stays on this machine, in a temporary folder and on studios that are started for it, and ends by itself.
Prints a row for every check: how many attempts were made, and whether all of them held.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .attacks import CHECKS, OWN, Check, Target, programs, requests, visitors
from .client import studio

__all__ = ["Row", "main", "programs", "requests", "run", "visitors"]
SHORT = 0.02  # share of the attempts of the short form


@dataclass(frozen=True)
class Row:
    """How one check went.

    Args:
        name: What must hold.
        attempts: How many were made.
        failed: What did not hold, in words.
        seconds: How long it took.
    """

    name: str
    attempts: int
    failed: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        held = "held" if not self.failed else f"FAILED {len(self.failed)}, first {self.failed[0]:.200}"
        return f"{self.attempts:>6} attempts {self.seconds:>6.1f} s  {self.name}: {held}"


def run(checks: Mapping[str, Check], target: Target) -> Iterator[Row]:
    """Make the attempts of every check; what breaks a check has not held."""
    for name, check in checks.items():
        began = time.monotonic()
        attempts = 0
        failed = []
        try:
            for what, held in check(target):
                attempts += 1
                if not held:
                    failed.append(what)
        except Exception as error:
            failed.append(repr(error))
        yield Row(name, attempts, tuple(failed), time.monotonic() - began)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few attempts, no programs of their own")
    parser.add_argument("--only", default="", help="only checks whose name holds this text")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory(prefix="fkv-attack-") as folder, studio("--longest-turn", "20") as started:
        target = Target(started.address, Path(folder), SHORT if args.short else 1.0, started)
        checks = CHECKS if args.short else CHECKS | OWN
        for row in run({name: each for name, each in checks.items() if args.only in name}, target):
            rows.append(row)
            print(row, flush=True)
        errors = started.errors()
    failed = [row for row in rows if row.failed]
    print(f"{len(rows)} checks, {sum(row.attempts for row in rows):,} attempts: {len(rows) - len(failed)} checks held")
    print(f"errors in the log: {len(errors)}", *errors[:3], sep="\n")
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(main())
