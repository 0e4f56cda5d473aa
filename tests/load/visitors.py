"""Many visitors on one machine: `python -m tests.load.visitors --clients 20 --minutes 5`.

Every one comes at a random moment, goes live and fetches every chunk. Passes when all were served in turn or told their
place or that the queue is full, none was lost, no error is in the log, and the resident memory is back.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from .client import Visitor, settle, studio
from .table import verdict


def visit(address: str, wait: float, chunks: int, seed: int, told: list[dict[str, Any]]) -> None:
    """Come after `wait` seconds and see a run through; notes what this visitor was told."""
    time.sleep(wait)
    began, places, fetched = time.monotonic(), [], 0
    own: dict[str, Any] = {"state": "lost"}
    told.append(own)
    try:
        with Visitor(address) as visitor:
            for manifest in visitor.go(chunks=chunks, stream="AB", seed=seed):
                own["state"] = manifest["state"]
                if manifest["state"] == "queued":
                    places.append(int(manifest["text"].split()[1]))
                elif manifest["state"] == "live" and "first_s" not in own and manifest["chunks"]:
                    own["first_s"] = time.monotonic() - began
                own["text"], fetched = manifest["text"], manifest.get("chunks", 0)
    except Exception as error:
        own["state"], own["text"] = "lost", repr(error)
    own |= {"places": places, "seconds": time.monotonic() - began, "chunks": fetched}


def come(address: str, waits: Sequence[float], chunks: int, told: list[dict[str, Any]], patience: float) -> None:
    """Visitors who come after so many seconds each; returns when all are through, or after `patience` seconds."""
    threads = [
        threading.Thread(target=visit, args=(address, wait, chunks, i, told), daemon=True)
        for i, wait in enumerate(waits)
    ]
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20, help="visitors (default: 20)")
    parser.add_argument("--minutes", type=float, default=5.0, help="within which they come (default: 5)")
    parser.add_argument("--chunks", type=int, default=14, help="length of each run (default: 14)")
    parser.add_argument("--seed", type=int, default=0, help="of when they come (default: 0)")
    args = parser.parse_args(argv)
    dice, told = random.Random(args.seed), []
    with studio("--longest-turn", "60") as started, Visitor(started.address) as watcher:
        come(started.address, [0.0] * 3, args.chunks, [], 300)
        settle(watcher)
        before = started.memory
        waits = [0.0, 0.0, *(dice.uniform(0, 60 * args.minutes) for _ in range(args.clients - 2))]
        come(started.address, waits, args.chunks, told, 60 * args.minutes + 120 * args.clients)
        health = settle(watcher)
        growth = started.memory / before - 1
        served = [own for own in told if own["state"] == "done"]
        full = [own for own in told if own["state"] == "error" and "queue is full" in own["text"]]
        falling = all(own["places"] == sorted(own["places"], reverse=True) for own in told)
        for own in told:
            if own not in served:
                print(own, file=sys.stderr)
        return verdict(
            {
                "clients": len(told),
                "served": len(served),
                "told that it is full": len(full),
                "had to wait": sum(bool(own["places"]) for own in told),
                "longest wait, s": max(own.get("first_s", 0.0) for own in told),
                "resident MB before": before / 1e6,
                "after": started.memory / 1e6,
            },
            {
                "all served or told that the queue is full": len(served) + len(full) == args.clients,
                "every run came whole": all(
                    own["chunks"] == args.chunks or "others are waiting" in own["text"] for own in served
                ),
                "places only fall": falling,
                f"memory grew by {growth:+.1%}, at most 5 %": growth <= 0.05,
                "nothing runs or waits": not (health["running"] or health["waiting"]),
                "no error in the log": not started.errors(),
            },
        )


if __name__ == "__main__":
    sys.exit(main())
