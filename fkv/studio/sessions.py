"""Who may stream, for how long, and what is kept for them.

A visitor has at most one `Run`. Runs take turns on the machine in the order in which they came (`Line`). What a run
shows is kept in memory under an unguessable key until the visitor leaves or begins another: nothing is written to disk,
so nothing is left behind, however the process ends.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .changes import Change


@dataclass(frozen=True)
class Limits:
    """seconds : longest run. pause : longest pause. memory : bytes of encoded chunks kept per run. visitors : runs kept in all.
    lead : seconds of video that may be generated ahead of the time at which they play."""

    seconds: float = 1800.0
    pause: float = 180.0
    memory: int = 192 << 20
    visitors: int = 32
    lead: float = 1.5


class Line:
    """First come, first served, one at a time."""

    def __init__(self) -> None:
        self._waiting: list[object] = []
        self._moved = threading.Condition()

    @contextmanager
    def queue(self, ticket: object) -> Iterator[None]:
        """Stand in line with `ticket` until the block ends."""
        with self._moved:
            self._waiting.append(ticket)
        try:
            yield
        finally:
            with self._moved:
                self._waiting.remove(ticket)
                self._moved.notify_all()

    def place(self, ticket: object, wait: float = 0.0) -> int:
        """How many are before `ticket`, 0 when it is its turn; first waits up to `wait` seconds for the line to move."""
        with self._moved:
            if wait and self._waiting.index(ticket):
                self._moved.wait(wait)
            return self._waiting.index(ticket)


class Run:
    """One generation from Go live to its end: control from the page, encoded chunks for it."""

    def __init__(self, memory: int) -> None:
        self.key = secrets.token_urlsafe(16)
        self.began = time.monotonic()
        self.live = False
        self.paused_seconds = 0.0
        self._memory, self._held = memory, 0
        self._files: OrderedDict[int, bytes] = OrderedDict()
        self._count = 0
        self._changes: list[Change] = []
        self._wake = threading.Condition()
        self._paused = self._stopped = False

    # Control, from any thread.

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def paused(self) -> bool:
        return self._paused and not self._stopped

    def stop(self) -> None:
        """End at the next chunk boundary."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def pause(self, paused: bool) -> None:
        """Hold, or go on, at the next chunk boundary."""
        with self._wake:
            self._paused = paused
            self._wake.notify_all()

    def ask(self, change: Change) -> None:
        """Change the streams when the next chunk begins."""
        with self._wake:
            self._changes.append(change)

    # For the generating thread.

    def take_changes(self) -> list[Change]:
        """The changes that were asked for since the last call."""
        with self._wake:
            changes, self._changes = self._changes, []
            return changes

    def wait_paused(self, seconds: float) -> bool:
        """Wait while paused, `seconds` at most. True when it is no longer paused; the time does not count as running."""
        began = time.monotonic()
        with self._wake:
            self._wake.wait_for(lambda: not self.paused, seconds)
        self.paused_seconds += time.monotonic() - began
        return not self.paused

    def rest(self, seconds: float) -> None:
        """Wait, but not beyond a stop or a pause."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopped or self._paused, max(0.0, seconds))

    # Encoded chunks.

    @property
    def count(self) -> int:
        """How many chunks were put; their numbers run from 0 to `count` - 1."""
        return self._count

    def put(self, data: bytes) -> None:
        """Keep the next chunk; the oldest ones go when memory runs out."""
        with self._wake:
            self._files[self._count] = data
            self._count += 1
            self._held += len(data)
            while self._held > self._memory and len(self._files) > 1:
                self._held -= len(self._files.popitem(last=False)[1])

    def get(self, number: int) -> bytes | None:
        """An encoded chunk, or None when there is none of that number (any more)."""
        with self._wake:
            return self._files.get(number)


class Registry:
    """The runs of all visitors, by session, and the line they stand in."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits, self.line = limits or Limits(), Line()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, session: str) -> Run:
        """A new run for a visitor; an earlier one of theirs is stopped and forgotten."""
        run = Run(self.limits.memory)
        self.close(session)
        with self._lock:
            self._runs[session] = run
            finished = [name for name, other in self._runs.items() if not other.live and other is not run]
            for name in finished[: max(0, len(self._runs) - self.limits.visitors)]:
                del self._runs[name]
        return run

    def of(self, session: str | None) -> Run | None:
        """The visitor's run, while it streams or waits for its turn."""
        with self._lock:
            run = self._runs.get(session or "")
        return run if run is not None and run.live and not run.stopped else None

    def close(self, session: str | None) -> None:
        """Stop a visitor's run and forget what it showed."""
        with self._lock:
            run = self._runs.pop(session or "", None)
        if run is not None:
            run.stop()

    def chunk(self, key: str, number: int) -> bytes | None:
        """An encoded chunk by the key of its run."""
        with self._lock:
            run = next((run for run in self._runs.values() if secrets.compare_digest(run.key.encode(), key.encode())), None)
        return None if run is None else run.get(number)
