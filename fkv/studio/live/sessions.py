"""The runs of all visitors.

A visitor has at most one run at a time. What a run shows is kept in memory under an unguessable key until the visitor
leaves or begins another: nothing is written to disk, so nothing is left behind, however the process ends.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from .limits import Limits
from .queue import Queue
from .run import Run


class Registry:
    """The runs of all visitors by session, and the queue in which they wait."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.queue = Queue(self.limits.waiting, self.limits.together)
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._pinned: list[Run] = []
        self._lock = threading.Lock()

    def pin(self, run: Run) -> None:
        """Serve the chunks of a run that belongs to no visitor for as long as the studio runs."""
        with self._lock:
            self._pinned.append(run)

    def begin(self, session: str | None) -> Run:
        """Begin a run for a visitor, and stop and forget their earlier one. Without a session nobody else can reach
        it."""
        run = Run(self.limits.memory, self._make_room)
        self.close(session)
        with self._lock:
            self._runs[session or run.key] = run
        self._make_room(run)
        return run

    @property
    def kept_bytes(self) -> int:
        """Bytes of the encoded chunks of all runs."""
        with self._lock:
            return sum(run.kept_bytes for run in self._runs.values())

    def _make_room(self, new: Run | None = None) -> None:
        """Forget finished runs, oldest first and never `new`, while there are too many runs or they keep too many
        bytes."""
        with self._lock:
            kept = sum(run.kept_bytes for run in self._runs.values())
            for name, run in list(self._runs.items()):
                if kept <= self.limits.total and len(self._runs) <= self.limits.visitors:
                    break
                if not run.live and run is not new:
                    kept -= run.kept_bytes
                    del self._runs[name]

    def of(self, session: str | None) -> Run | None:
        """The visitor's run, while it generates or waits for its turn."""
        with self._lock:
            run = self._runs.get(session or "")
        return run if run is not None and run.live and not run.stopped else None

    def last(self, session: str | None) -> Run | None:
        """The visitor's newest run, whether it still generates or has ended."""
        with self._lock:
            return self._runs.get(session or "")

    def replaced(self, session: str | None, run: Run) -> bool:
        """Whether the visitor has begun another run since, whose are the buttons now."""
        return self.last(session) not in (run, None)

    def close(self, session: str | None) -> None:
        """Stop a visitor's run and forget what it showed."""
        with self._lock:
            run = self._runs.pop(session or "", None)
        if run is not None:
            run.stop()

    def forget(self, run: Run) -> None:
        """Forget what a run showed."""
        with self._lock:
            self._runs = OrderedDict((name, each) for name, each in self._runs.items() if each is not run)

    def chunk(self, key: str, number: int) -> bytes | None:
        """An encoded chunk by the key of its run."""
        with self._lock:
            runs = (*self._pinned, *self._runs.values())
            run = next((run for run in runs if secrets.compare_digest(run.key.encode(), key.encode())), None)
        return None if run is None else run.get(number)
