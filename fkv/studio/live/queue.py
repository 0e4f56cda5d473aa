"""The queue for the machine: first come, first served, one at a time, or several that can share it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from statistics import median

LENGTH = 24  # how many may wait unless a limit says otherwise
RECENT = 8  # turns whose length tells how long others will wait


class Queue:
    """Visitors and programs that wait for the machine, and those that have it.

    Args:
        limit: How many may wait.
        together: How many of those that can share the machine have it at once.
    """

    def __init__(self, limit: int = LENGTH, together: int = 1) -> None:
        self.limit = limit
        self.together = together
        self._tickets: list[object] = []
        self._sharing: set[int] = set()
        self._moved = threading.Condition()
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def running(self) -> int:
        """How many have their turn: the first, and those behind it that can share the machine if it can."""
        first = takewhile(lambda ticket: id(ticket) in self._sharing, self._tickets[: self.together])
        return max(min(1, len(self._tickets)), len(list(first)))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._tickets) - self.running

    @contextmanager
    def join(self, ticket: object, shares: bool = False) -> Iterator[None]:
        """Stay in the queue until the block ends.

        Args:
            ticket: Whoever joins.
            shares: Whether it can share the machine with others that can.

        Raises:
            ValueError: Too many wait already.
        """
        with self._moved:
            if self._tickets and self.waiting >= self.limit:
                raise ValueError(f"the queue is full ({self.waiting} waiting); try again in a few minutes")
            self._tickets.append(ticket)
            if shares:
                self._sharing.add(id(ticket))
        try:
            yield
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._sharing.discard(id(ticket))
                self._moved.notify_all()

    def place(self, ticket: object, wait: float = 0.0) -> int:
        """Where a ticket is.

        Args:
            ticket: A ticket in the queue.
            wait: Seconds to wait first for the queue to move.

        Returns:
            Which place it has among those that wait, 0 when it is this one's turn.
        """
        with self._moved:
            if wait and self._place(ticket):
                self._moved.wait(wait)
            return self._place(ticket)

    def took(self, seconds: float) -> None:
        """Note how long a turn lasted."""
        self._recent.append(seconds)

    def expected(self, place: int, longest: float) -> tuple[str, float]:
        """How long one who has a place among those that wait will wait.

        Args:
            place: From 1.
            longest: Seconds that a turn lasts at most while others wait.

        Returns:
            "about", by the median of the last turns, or "at most", where none has ended yet; and seconds.
        """
        turns = -(-place // self.together)
        recent = list(self._recent)
        return ("about", turns * min(longest, median(recent))) if recent else ("at most", turns * longest)

    def _place(self, ticket: object) -> int:
        return max(0, self._tickets.index(ticket) + 1 - self.running)
