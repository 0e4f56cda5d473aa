"""Who may stream, for how long, and what is kept for them.

A visitor has at most one `Run`. Runs take turns on the machine in the order in which they came (`Queue`). What a run
shows is kept in memory under an unguessable key until the visitor leaves or begins another: nothing is written to disk,
so nothing is left behind, however the process ends.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fkv.storyboard import Change

from .attention_probe import Watch

MOST_CHANGES = 64
"""Changes that may wait for the next chunk; older ones are forgotten."""


@dataclass(frozen=True)
class Limits:
    """What a visitor, and all of them together, may take of the machine.

    seconds : longest run, pauses included. turn : longest run once others wait. pause : longest pause.
    idle : longest time for which nobody fetches what was made. waiting : visitors in line. visitors : runs kept in all.
    memory, total : bytes of encoded chunks kept per run, and of all runs together. kv : bytes of KV cache per run.
    lead : seconds of video that may be generated ahead of the time at which they play.
    """

    seconds: float = 1800.0
    turn: float = 180.0
    pause: float = 180.0
    idle: float = 60.0
    waiting: int = 24
    visitors: int = 32
    memory: int = 192 << 20
    total: int = 768 << 20
    kv: int = 2 << 30
    lead: float = 1.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the limit {name!r} must be a number of at least 0, not {value}")


class Queue:
    """First come, first served, one at a time. `limit` : how many may wait."""

    def __init__(self, limit: int = Limits.waiting) -> None:
        self.limit = limit
        self._waiting: list[object] = []
        self._moved = threading.Condition()

    @property
    def running(self) -> int:
        """How many have their turn, 0 or 1."""
        return min(1, len(self._waiting))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting) - self.running

    @contextmanager
    def join(self, ticket: object) -> Iterator[None]:
        """Stand in line with `ticket` until the block ends. Raises ValueError when too many wait already."""
        with self._moved:
            if self._waiting and self.waiting >= self.limit:
                raise ValueError(f"{self.waiting} visitors wait for this machine already; try again in a few minutes")
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
    """One generation from Go live to its end: control from the page, encoded chunks for it.

    watch : whose heads the visitor looks at; None while they look at none. Any thread may set it. source : where its figures come from.
    """

    def __init__(self, memory: int, crowded: Callable[[], None] = lambda: None) -> None:
        """memory : bytes of encoded chunks to keep. crowded : called after a chunk was put, to make room among all runs."""
        self.key = secrets.token_urlsafe(16)
        self.began = time.monotonic()
        self.live = False
        self.ended = self.source = ""
        self.paused_seconds = 0.0
        self.made_bytes = self.held = self.kv_bytes = 0
        self._memory, self._crowded = memory, crowded
        self._unseen: float | None = None
        self._paused_since = 0.0
        self._files: OrderedDict[int, bytes] = OrderedDict()
        self._count = 0
        self._changes: list[Change] = []
        self._wake = threading.Condition()
        self._paused = self._stopped = False
        self._until = 0
        self.watch: Watch | None = None

    # Control, from any thread.

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def paused(self) -> bool:
        return self._paused and not self._stopped and self._count >= self._until

    def stop(self) -> None:
        """End at the next chunk boundary."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def pause(self, paused: bool) -> None:
        """Hold, or go on, at the next chunk boundary."""
        self._unseen = None
        self._hold(paused, 0)

    def toggle(self) -> None:
        """Pause, or go on where it is paused; two at once cancel out."""
        with self._wake:
            self.pause(not self.paused)

    def step(self) -> None:
        """While paused: make one more chunk, and pause anew."""
        self._hold(self._paused, self._count + 1)

    def _hold(self, paused: bool, until: int) -> None:
        with self._wake:
            self._paused, self._until, self._paused_since = paused, until, time.monotonic()
            self._wake.notify_all()

    @property
    def control(self) -> tuple[bool, bool, int]:
        """Whether it was stopped, whether it is held, and up to which chunk it goes on though held: for `follow` in another process."""
        with self._wake:
            return self._stopped, self._paused, self._until

    def follow(self, control: tuple[bool, bool, int]) -> None:
        """Be stopped, held or stepped as the run is that says so."""
        stopped, paused, until = control
        if stopped:
            self.stop()
        if (paused, until) != (self._paused, self._until):
            self._hold(paused, until)

    def ask(self, change: Change) -> None:
        """Change the streams when the next chunk begins."""
        with self._wake:
            self._changes = [*self._changes, change][-MOST_CHANGES:]

    # For the generating thread.

    def take_changes(self) -> list[Change]:
        """The changes that were asked for since the last call."""
        with self._wake:
            changes, self._changes = self._changes, []
            return changes

    @property
    def paused_for(self) -> float:
        """Seconds since the pause began, 0 when there is none."""
        return time.monotonic() - self._paused_since if self.paused else 0.0

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

    @property
    def idle(self) -> float:
        """Seconds for which there has been a chunk to fetch and nobody fetched any."""
        with self._wake:
            return 0.0 if self._unseen is None else time.monotonic() - self._unseen

    def put(self, data: bytes) -> None:
        """Keep the next chunk; the oldest ones go when memory runs out."""
        with self._wake:
            self._files[self._count] = data
            self._count += 1
            self.made_bytes += len(data)
            self.held += len(data)
            while self.held > self._memory and len(self._files) > 1:
                self.held -= len(self._files.popitem(last=False)[1])
            if self._unseen is None:
                self._unseen = time.monotonic()
        self._crowded()

    def get(self, number: int) -> bytes | None:
        """An encoded chunk, or None when there is none of that number (any more)."""
        with self._wake:
            self._unseen = None
            return self._files.get(number)

    def files(self) -> list[bytes]:
        """All encoded chunks that are kept, in order."""
        with self._wake:
            return list(self._files.values())


class Registry:
    """The runs of all visitors, by session, and the line they stand in."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.queue = Queue(self.limits.waiting)
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._pinned: list[Run] = []
        self._lock = threading.Lock()

    def pin(self, run: Run) -> None:
        """Serve the chunks of a run that belongs to no visitor, for good."""
        with self._lock:
            self._pinned.append(run)

    def begin(self, session: str | None) -> Run:
        """A new run for a visitor; an earlier one of theirs is stopped and forgotten. Without a session nobody else can reach it."""
        run = Run(self.limits.memory, self._make_room)
        self.close(session)
        with self._lock:
            self._runs[session or run.key] = run
        self._make_room(run)
        return run

    @property
    def held(self) -> int:
        """Bytes of encoded chunks of all runs."""
        with self._lock:
            return sum(run.held for run in self._runs.values())

    def _make_room(self, but: Run | None = None) -> None:
        """Forget finished runs (but not that one), oldest first, while all runs together are too many or hold too much."""
        with self._lock:
            held = sum(run.held for run in self._runs.values())
            for name, run in list(self._runs.items()):
                if held <= self.limits.total and len(self._runs) <= self.limits.visitors:
                    break
                if not run.live and run is not but:
                    held -= run.held
                    del self._runs[name]

    def of(self, session: str | None) -> Run | None:
        """The visitor's run, while it streams or waits for its turn."""
        with self._lock:
            run = self._runs.get(session or "")
        return run if run is not None and run.live and not run.stopped else None

    def last(self, session: str | None) -> Run | None:
        """The visitor's newest run, whether it still streams or has ended."""
        with self._lock:
            return self._runs.get(session or "")

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
