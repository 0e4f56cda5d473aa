"""The queue for the machine: first come, first served, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LENGTH = 24  # how many may wait unless a limit says otherwise


class Queue:
    """Visitors and programs that wait for the machine, and the one that has it.

    Args:
        limit: How many may wait.
    """

    def __init__(self, limit: int = LENGTH) -> None:
        self.limit = limit
        self._tickets: list[object] = []
        self._moved = threading.Condition()

    @property
    def running(self) -> int:
        """How many have their turn, 0 or 1."""
        return min(1, len(self._tickets))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._tickets) - self.running

    @contextmanager
    def join(self, ticket: object) -> Iterator[None]:
        """Stay in the queue with `ticket` until the block ends. Raises ValueError when too many wait already."""
        with self._moved:
            if self._tickets and self.waiting >= self.limit:
                raise ValueError(f"the queue is full ({self.waiting} waiting); try again in a few minutes")
            self._tickets.append(ticket)
        try:
            yield
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def place(self, ticket: object, wait: float = 0.0) -> int:
        """How many are ahead of a ticket.

        Args:
            ticket: A ticket in the queue.
            wait: Seconds to wait first for the queue to move.

        Returns:
            The number of tickets ahead, 0 when it is this one's turn.
        """
        with self._moved:
            if wait and self._tickets.index(ticket):
                self._moved.wait(wait)
            return self._tickets.index(ticket)
