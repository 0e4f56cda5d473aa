"""Whether the program that called an endpoint still waits for the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

import gradio as gr
from gradio.context import LocalContext

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds for which a call goes on although its stream of answers was never opened."""


class Left(gr.Error):
    """The caller is gone."""

    def __init__(self) -> None:
        super().__init__("Ended, because nobody listened for the answer.", print_exception=False)


class Caller:
    """Who called the endpoint that this thread runs; made where the call begins.

    Gradio forgets a call that is cancelled or whose stream of answers was closed. A stream that was never opened gives no sign but
    messages that nobody takes; that is borne for `PATIENCE` seconds. A client of MCP cannot be seen: Gradio itself listens for it.
    """

    def __init__(self) -> None:
        self._queue, self._event = LocalContext.blocks.get()._queue, LocalContext.event_id.get()
        self._began, self._heard = time.monotonic(), False

    @property
    def left(self) -> bool:
        event = self._queue.event_ids_to_events.get(self._event)
        if event is None or not event.alive:
            return True
        messages = self._queue.pending_messages_per_session.get(event.session_hash)
        self._heard = self._heard or (messages is not None and messages.empty())
        return not self._heard and time.monotonic() - self._began > PATIENCE

    def stay(self) -> None:
        """Raises `Left` when the caller is gone."""
        if self.left:
            raise Left

    def while_here(self, steps: Iterator[T]) -> Iterator[T]:
        """What `steps` yields; when the caller is gone it is closed, and `Left` raised."""
        with closing(steps):
            for step in steps:
                self.stay()
                yield step
