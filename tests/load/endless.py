"""One stream for a long time: `python -m tests.load.endless --minutes 30`.

Passes when the last 100 chunks take as long as the first 100 after the start, and memory stays flat, both within 10 %.
What a chunk takes is its tenth percentile there: whatever else a machine does adds time, and on shared ones it comes
and goes by the minute; the medians of every tenth of the run are printed beside it. The threads that compute wait for
each other awake (`GOMP_SPINCOUNT`): how soon a virtual machine wakes them changes by the minute, and a chunk's time
with it by a third. Of the encoded video only 16 MiB are kept, so that this bound is met early.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing

import numpy as np

from fkv.studio.media.protocol import unpack

from .client import Visitor, studio
from .table import verdict

WARM = 10
"""Chunks at the start that do not count: the cache is not full yet."""
UNDISTURBED = 10
"""The percentile of a window's times that tells what a chunk takes when nothing else runs."""
STAGES = ("text_s", "rebuild_s", "denoise_s", "context_s", "decode_s")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--window", type=int, default=100, help="chunks at either end that are compared (default: 100)")
    args = parser.parse_args(argv)
    seconds, memory, seen = [], [], 0
    with (
        studio("--longest-run", str(60 * args.minutes + 600), "--most-memory", "64", GOMP_SPINCOUNT="30000") as started,
        Visitor(started.address) as visitor,
    ):
        until = time.monotonic() + 60 * args.minutes
        event = visitor.event("fkv-go")
        visitor.join(
            event, visitor.form(event, prompt="a red ball bouncing over the hills at sunset", chunks=0, stream="A")
        )
        with closing(visitor.outputs()) as shown:
            for stage, *_ in shown:
                manifest = stage.get("value", stage)
                for number in range(seen, manifest["chunks"]):
                    answer = visitor.chunk(manifest["run"], number)
                    if answer.status_code == 200:
                        record, _ = unpack(answer.content)
                        seconds.append(sum(record["streams"]["A"][stage] for stage in STAGES))
                        memory.append(started.memory)
                seen = manifest["chunks"]
                if time.monotonic() > until:
                    break
        state = manifest["state"]
        errors = started.errors()
    steady = seconds[WARM:]
    first, last = (np.percentile(part, UNDISTURBED) for part in (steady[: args.window], steady[-args.window :]))
    print("median ms by tenths:", *(f"{1000 * np.median(part):.0f}" for part in np.array_split(steady, 10)))
    window = min(args.window, len(memory) // 2)
    before, after = max(memory[WARM : WARM + window]), max(memory[-window:])
    return verdict(
        {
            "chunks": seen,
            "fetched": len(seconds),
            "ms, first": 1000 * first,
            "ms, last": 1000 * last,
            "MB, first": before / 1e6,
            "MB, last": after / 1e6,
        },
        {
            f"{len(steady)} steady chunks, at least twice {args.window}": len(steady) >= 2 * args.window,
            f"time per chunk changed by {last / first - 1:+.1%}, at most 10 %": abs(last / first - 1) <= 0.1,
            f"memory grew by {after / before - 1:+.1%}, at most 10 %": after / before <= 1.1,
            "every chunk was fetched, and it still streamed": len(seconds) == seen and state == "live",
            "no error in the log": not errors,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
