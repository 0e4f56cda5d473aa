"""Whether the program that called an endpoint still waits for the answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from gradio.context import LocalContext

PATIENCE = 10.0  # seconds for which a call goes on although its stream of answers was never opened
HEADER = "x-fkv-call"  # names an MCP call in the request that Gradio itself makes for it

_open: set[str] = set()


@contextmanager
def marked(scope: MutableMapping[str, Any]) -> Iterator[str]:
    """Name an MCP call in the headers of its request; `Caller` sees it as long as the block lasts, or until `close`."""
    call = secrets.token_hex(8)
    scope["headers"] = [*scope["headers"], (HEADER.encode(), call.encode())]
    _open.add(call)
    try:
        yield call
    finally:
        close(call)


def close(call: str) -> None:
    """The client of an MCP call is gone."""
    _open.discard(call)


class Caller:
    """The client of the event that this thread runs; made where the call begins.

    Gradio forgets a call that is cancelled or whose stream of answers was closed. A stream that was never opened shows
    only by messages that nobody takes; that is tolerated for `PATIENCE` seconds. Gradio itself listens for a client of
    MCP, whose connection is watched where it comes in.
    """

    def __init__(self) -> None:
        blocks = LocalContext.blocks.get(None)
        request = LocalContext.request.get(None)
        self._queue = None if blocks is None else blocks._queue
        self._event = LocalContext.event_id.get(None)
        self._call = None if request is None else request.headers.get(HEADER)
        self._began = time.monotonic()
        self._heard = False

    @property
    def left(self) -> bool:
        """Whether nobody waits for the answer any more; False outside Gradio's queue."""
        if self._queue is None or self._event is None:
            return False
        event = self._queue.event_ids_to_events.get(self._event)
        if event is None or not event.alive or (self._call is not None and self._call not in _open):
            return True
        messages = self._queue.pending_messages_per_session.get(event.session_hash)
        self._heard = self._heard or (messages is not None and messages.empty())
        return not self._heard and time.monotonic() - self._began > PATIENCE
