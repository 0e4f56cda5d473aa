"""Streams of hundreds of chunks with flat memory: `python -m tests.long_run [CHUNKS] [POLICY ...]`, by default 600.

The small model of the tests streams under every policy that forgets. From a third of the way on, nothing may grow: the
buffers of the cache, what the policy notes, and the latents that a re-cache would need. `tests/test_long_run.py` runs
fewer chunks, without the latents: those of `tether-cache`, whose layers recall frames of different chunks, settle late.
"""

from __future__ import annotations

import pickle
import sys
import time

from fkv import policies
from fkv.policies import POLICIES
from fkv.stream import Stream
from tests.small_tiny import small_model

GROWING = ("full", "recompute", "per-step", "mpcache")
"""Policies that keep everything by default; `mpcache` keeps what its threshold does not catch."""


def variants() -> list[str]:
    """Every policy that forgets, in segments that fit the small model, and one with a shorter context pass."""
    texts = []
    for name in POLICIES:
        if name not in GROWING:
            texts.append(f"{name}:segments_per_frame=4" if hasattr(POLICIES[name], "segments_per_frame") else name)
    return [*texts, "commit:6 longlive", "longlive:fp8=true"]


def size(stream: Stream, latents: bool = True) -> int:
    """Bytes of what a stream holds between chunks: buffers, notes and, unless left out, latents."""
    notes = len(pickle.dumps([cache.notes for cache in stream.caches]))
    cached = sum(cache.allocated_bytes() for cache in stream.caches)
    return cached + notes + latents * sum(each.nbytes for each in stream._state.latents.values())


def run(stream: Stream, chunks: int, latents: bool = True) -> list[int]:
    """Generate chunks. Returns the size after each; raises AssertionError for latents that are not finite."""
    sizes = []
    for _ in range(chunks):
        assert stream.step().latents.isfinite().all()
        sizes.append(size(stream, latents))
    return sizes


def grows(sizes: list[int]) -> bool:
    """Whether the last third is larger than the middle one ever was, beyond the jitter of pickled numbers."""
    third = len(sizes) // 3
    return max(sizes[-third:]) > 1.02 * max(sizes[third:-third])


def main(arguments: list[str]) -> int:
    """Run the policies named, or all. Returns 1 where memory grew."""
    chunks = int(arguments[0]) if arguments else 600
    model, bad = small_model(), 0
    for text in arguments[1:] or variants():
        began = time.perf_counter()
        sizes = run(Stream(model, policies.parse(text), "a ball", decode=False), chunks)
        bad += grows(sizes)
        spent = time.perf_counter() - began
        verdict = "GROWS" if grows(sizes) else "flat "
        print(f"{verdict} {text:<40} {sizes[-1] / 1e3:9.1f} kB after {chunks} chunks, {spent:.0f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
