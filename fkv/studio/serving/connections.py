"""Connections: how many there are, and how long one may wait for a request or for somebody to read the answer."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio.http_server
import gradio.networking
import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

CONNECTIONS = 1024  # at most, and at most a quarter of the descriptors that the process may open
REQUEST = 30.0  # seconds in which a request has to come, and `RATE` for those that are large
ANSWER = 60.0  # seconds in which what was sent has to be read, and `RATE` for what is large
RATE = 8 << 10  # bytes a second
LOOK = 5.0  # seconds between two looks at a connection
HEADERS = 64 << 10  # bytes of the headers of a request
PIECES = 1024  # pieces in which a body may come, whatever its size
PIECE = 64  # bytes on average of those beyond


def most_connections() -> int:
    """How many connections the process can serve; raises its limit of open files first, as far as it may."""
    if resource is None:
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(CONNECTIONS, soft // 4)


def bound(most: int, proxies: str) -> None:
    """Serve Gradio's pages over connections of the class below.

    Args:
        most: Connections at most.
        proxies: Addresses and networks, with commas between them, whose `X-Forwarded-For` names the visitor.
    """
    protocol: Any = partial(Connection, most)  # uvicorn calls it as it would call the class
    # asyncio accepts up to `backlog` connections at once, before it tells anyone of the first
    config = partial(
        uvicorn.Config,
        http=protocol,
        ws="none",
        backlog=max(1, most // 4),
        forwarded_allow_ips=proxies,
    )
    gradio.http_server.uvicorn = SimpleNamespace(Config=config)  # type: ignore[assignment]
    # Gradio asks its own page at the start, and ends the studio where many others ask at the same time
    gradio.networking.url_ok = lambda url: True


class Parser(h11.Connection):
    """HTTP of one connection. A body in tiny pieces, each of which costs as much as a large one, is refused.

    Attributes:
        body: Bytes of the body so far, but for what came after the answer.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEADERS)
        self.body = 0
        self._pieces = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.body = self._pieces = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self.body += 0 if self.our_state is h11.DONE else len(event.data)
            if self._pieces > PIECES + self.body // PIECE:
                raise h11.RemoteProtocolError("the pieces of the body are too small")
        return event


class Connection(H11Protocol):
    """A connection that ends where its request or the reading of its answer takes too long.

    Where there are too many, the one that has waited longest for a request makes room: one that is answered never does.

    Args:
        most: Connections at most.
    """

    def __init__(self, most: int, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._most = most
        self._waits_since: float | None = None
        self._unread_since: float | None = None
        self.conn: Parser = Parser()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that any byte that nobody reads is noticed
        self._watch()
        self._look()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # no HTTP, and too late to answer that: the answer has begun
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # so that the application does not answer as well
        super().send_400_response(msg)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def _watch(self) -> None:
        """Note since when the connection waits for a request, or for the rest of one."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = self.loop.time()

    def _look(self) -> None:
        """End the connection where something takes too long, else look again later."""
        if self not in self.connections:
            return
        now = self.loop.time()
        late = self._waits_since is not None and now - self._waits_since > REQUEST + self.conn.body / RATE
        unread = self.transport.get_write_buffer_size()
        stuck = self._unread_since is not None and now - self._unread_since > ANSWER + unread / RATE
        if late or stuck:
            self.transport.abort()
        else:
            self.loop.call_later(LOOK, self._look)

    def _make_room(self) -> None:
        others = [
            each
            for each in self.connections
            if isinstance(each, Connection) and each is not self and not each.transport.is_closing()
        ]
        if len(others) < self._most:
            return
        waiting = [each for each in others if each._waits_since is not None]
        log.warning("too many connections", extra={"facts": {"open": len(others), "without_a_request": len(waiting)}})
        last = min(waiting, key=lambda each: each._waits_since or 0.0, default=self)
        last.transport.abort()
