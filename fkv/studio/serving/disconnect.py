"""Whether the program that called an endpoint still waits for the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

from gradio.context import LocalContext

from fkv.studio.errors import Disconnected

T = TypeVar("T")
PATIENCE = 10.0  # seconds for which a call goes on although its stream of answers was never opened


class Caller:
    """The client of the endpoint that this thread runs; made where the call begins.

    Gradio forgets a call that is cancelled or whose stream of answers was closed. A stream that was never opened shows
    only by messages that nobody takes; that is tolerated for `PATIENCE` seconds. A client of MCP cannot be seen: Gradio
    itself listens for it.
    """

    def __init__(self) -> None:
        self._queue = LocalContext.blocks.get()._queue
        self._event = LocalContext.event_id.get()
        self._began = time.monotonic()
        self._heard = False

    @property
    def left(self) -> bool:
        event = self._queue.event_ids_to_events.get(self._event)
        if event is None or not event.alive:
            return True
        messages = self._queue.pending_messages_per_session.get(event.session_hash)
        self._heard = self._heard or (messages is not None and messages.empty())
        return not self._heard and time.monotonic() - self._began > PATIENCE

    def check(self) -> None:
        """Raises `Disconnected` when the caller is gone."""
        if self.left:
            raise Disconnected

    def while_here(self, steps: Iterator[T]) -> Iterator[T]:
        """Pass on what `steps` yields; when the caller is gone, close it and raise `Disconnected`."""
        with closing(steps):
            for step in steps:
                self.check()
                yield step
