"""Connections that take too long, that are too many, or that come through a proxy."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest

from fkv.studio.live import telemetry
from fkv.studio.live.limits import Limits
from fkv.studio.serving import connections
from tests.load.client import Visitor
from tests.load.inside import served

MOST = 16


@pytest.fixture(scope="module")
def address(small) -> Iterator[str]:
    """A studio with little patience and few connections."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CONNECTIONS": MOST, "REQUEST": 1.0, "ANSWER": 1.0, "LOOK": 0.1, "RATE": 1 << 20}.items():
            patch.setattr(connections, name, value)
        with served(small, Limits(lead=0.2), proxies="127.0.0.9") as url:
            yield url


def sent(address: str, data: bytes, source: str = "127.0.0.1") -> socket.socket:
    """A connection from a loopback address, on which so much was sent."""
    url = httpx.URL(address)
    connection = socket.create_connection((url.host, url.port), 20, (source, 0))
    connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> bytes:
    """What comes until the connection ends, or 20 s pass without a byte."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90\r\n\r\n"


PARTS = {
    "nothing": b"",
    "a line": b"GET /",
    "headers": GET[:-2],
    "no body": POST,
    "half a body": POST + b"{",
    "half a second request": GET + POST + b"{",
    "a body that nobody reads": GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n"),
}


def test_a_request_that_never_comes_whole_is_ended(address):
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(sent(address, data))) for data in PARTS.values()]
        for name, connection in zip(PARTS, connections, strict=True):
            try:
                answer(connection)
            except TimeoutError:
                pytest.fail(f"{name}: the connection stays open")


def test_a_request_that_trickles_is_ended(address):
    with closing(sent(address, POST)) as connection:
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b" ")
                time.sleep(0.1)
    assert time.monotonic() - began < 5


def test_an_answer_that_nobody_reads_is_ended(address):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        url = httpx.URL(address)
        connection.connect((url.host, url.port))
        connection.settimeout(20)
        connection.sendall(b"GET /config HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
        time.sleep(4)
        assert len(answer(connection)) < 2 << 20, "the rest of the answers was given up"


def test_a_stream_of_answers_stays_although_nothing_is_asked(address):
    with Visitor(address) as visitor:
        time.sleep(2)
        assert visitor._heart.recv(1 << 16), "the heartbeat goes on"
        visitor._heart.setblocking(False)
        with pytest.raises(BlockingIOError):
            visitor._heart.recv(1)


def test_connections_without_a_request_make_room(address):
    with ExitStack() as stack, Visitor(address) as visitor:
        for data in (b"", b"GET /", POST) * (MOST // 2):
            stack.enter_context(closing(sent(address, data)))
        assert visitor.health()["status"] == "ok"
        assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200


def test_one_address_does_not_take_all_connections(address):
    beat = b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with ExitStack() as stack:
        held = [stack.enter_context(closing(sent(address, beat))) for _ in range(MOST)]
        statuses = [connection.recv(12)[-3:] for connection in held]
        assert statuses.count(b"200") == MOST // 2 and statuses.count(b"503") == MOST // 2
        with closing(sent(address, GET, "127.0.0.2")) as other:
            assert other.recv(12).endswith(b"200")


@pytest.mark.parametrize(("proxy", "trusted"), [("127.0.0.9", True), ("127.0.0.1", False)])
def test_only_a_configured_proxy_names_the_visitor(address, proxy, trusted):
    named = b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.%d\r\n\r\n"
    with ExitStack() as stack:
        held = [stack.enter_context(closing(sent(address, named % number, proxy))) for number in range(MOST - 1)]
        statuses = [connection.recv(12)[-3:] for connection in held]
    assert (b"503" not in statuses) == trusted


def test_what_is_refused_costs_one_line_a_minute(monkeypatch):
    clock = iter((0.0, 1.0, 2.0, 61.0))
    monkeypatch.setattr(telemetry, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    seldom = telemetry.Seldom()
    records = [logging.LogRecord("fkv.studio.x", 30, "x.py", 3, "too many", None, None) for _ in range(4)]
    assert [seldom.filter(record) for record in records] == [True, False, False, True]
    assert records[-1].facts == {"left_out": 2}
    runs = [logging.LogRecord(telemetry.log.name, 20, "x.py", 3, "stream", None, None) for _ in range(2)]
    assert all(seldom.filter(record) for record in runs)
