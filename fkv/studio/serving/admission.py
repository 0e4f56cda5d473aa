"""Places in Gradio's queue: programs and the page have separate ones, no address takes them all, and the messages of a
session with events under way are kept."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr
from gradio.queueing import Queue
from gradio.utils import LRUCache

PLACES = 128  # in all
API_PLACES = 32  # calls of programs, running and waiting
ADDRESS_PLACES = 64  # events of one address, running and waiting
SESSIONS = 2000  # sessions whose messages are kept while nothing of theirs is under way
JOIN = re.compile(r"(?:/gradio_api)?/(?:queue/join|call/(?:v2/)?([^/]+))/?$")
FULL = "This studio cannot take another {} now; try again in a minute."


class Messages(LRUCache):
    """Messages per session. The oldest sessions without an event under way make room, never the others."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(SESSIONS)
        self._queue = queue

    def __setitem__(self, session: str, messages: Any) -> None:
        if session not in self and len(self) >= self.max_size:
            idle = next((each for each in self if not self._under_way(each)), None)
            if idle is not None:
                del self[idle]
                self._queue.pending_event_ids_session.pop(idle, None)
        super(LRUCache, self).__setitem__(session, messages)

    def _under_way(self, session: str) -> bool:
        events = self._queue.pending_event_ids_session.get(session, ())
        return any(event in self._queue.event_ids_to_events for event in events)


class Admission:
    """Decides whether there is a place for a call.

    Args:
        page: The page; its queue keeps messages as `Messages` does from now on.
    """

    def __init__(self, page: gr.Blocks) -> None:
        self._page = page
        self._queue = page._queue
        self._queue.pending_messages_per_session = Messages(self._queue)

    def refuse(self, path: str, body: Any, address: str) -> str | None:
        """Say why there is no place for a call; None where there is one, or where it takes none."""
        call = JOIN.match(path)
        if call is None:
            return None
        events = [event for event in self._queue.event_ids_to_events.values() if event.alive]
        if sum(_address(event) == address for event in events) >= ADDRESS_PLACES:
            return FULL.format("call from this address")
        if call[1] is None and self._is_of_the_page(body):
            return None
        if sum(event.fn.api_visibility == "public" for event in events) >= API_PLACES:
            return FULL.format("call from a program")
        return None

    def _is_of_the_page(self, body: Any) -> bool:
        index = body.get("fn_index") if isinstance(body, dict) else None
        function = self._page.fns.get(index) if isinstance(index, int) else None
        return function is not None and function.api_visibility != "public"


def _address(event: Any) -> str:
    client = getattr(event.request, "client", None)
    return "" if client is None else client.host
