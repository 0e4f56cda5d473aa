"""What somebody who means harm tries: every check is a generator of attempts, each with what was tried and whether the
studio held."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.load.client import Studio

Attempt = tuple[str, bool]


@dataclass(frozen=True)
class Target:
    """The studio that is attacked.

    Args:
        address: Of the studio.
        folder: For files of the attack.
        scale: Share of the attempts that are made, 0 to 1.
        studio: Its process, None for a studio in this one.
    """

    address: str
    folder: Path
    scale: float = 1.0
    studio: Studio | None = None

    def count(self, most: int) -> int:
        """How many attempts to make of `most`, at least one."""
        return max(1, round(most * self.scale))

    def client(self) -> httpx.Client:
        """A client that keeps no connection and asks no proxy."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.address, timeout=30, trust_env=False, limits=limits)

    def connect(self, data: bytes = b"") -> socket.socket:
        """A bare connection, on which so much was sent."""
        url = httpx.URL(self.address)
        connection = socket.create_connection((url.host, url.port), 30)
        connection.sendall(data)
        return connection

    def status(self, data: bytes) -> int:
        """The status that bytes are answered with, 0 for none."""
        with closing(self.connect(data)) as connection:
            try:
                answer = connection.recv(64)
            except OSError:
                answer = b""
        return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/") else 0


Check = Callable[[Target], Iterator[Attempt]]
CHECKS: dict[str, Check] = {}
"""Checks of a studio that runs, by what must hold."""
OWN: dict[str, Check] = {}
"""Checks that start programs of their own, and take minutes."""


def check(name: str, own: bool = False) -> Callable[[Check], Check]:
    """List a check under what must hold."""

    def listed(function: Check) -> Check:
        (OWN if own else CHECKS)[name] = function
        return function

    return listed
