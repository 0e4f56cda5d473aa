"""What a request may look like: JSON without absurd depth or numbers, short session hashes, MCP only of this site."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import Scope

MAX_DEPTH = 32  # of nested lists and objects
MAX_VALUES = 20_000  # in all lists and objects
MAX_DIGITS = 32  # of a number
MAX_EXPONENT = 99
MAX_HASH = 64  # characters of a session hash; Gradio's have 11
TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)  # one step a run
NUMBERS = re.compile(rb"\d{%d}|[eE][+-]?0*[1-9]\d{2}|NaN|Infinity" % (MAX_DIGITS + 1))
HEARTBEAT = re.compile(r"(?:/gradio_api)?/heartbeat/(.*)", re.DOTALL)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def read_json(data: bytes) -> Any:
    """Parse the JSON body of a call.

    Raises:
        ValueError: It is no JSON in UTF-8, is nested deeper than `MAX_DEPTH`, holds more than `MAX_VALUES` values, a
            number of more than `MAX_DIGITS` digits or beyond e99, or a session hash that is no short text.
    """
    try:
        text = data.decode()  # what is looked for below is written otherwise in UTF-16, which json.loads would read
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    bare = TEXTS.sub(b'""', data)
    if NUMBERS.search(bare):
        raise ValueError(f"a number has more than {MAX_DIGITS} digits, is beyond e{MAX_EXPONENT}, or is not finite")
    if sum(bare.count(mark) for mark in (b"[", b"{", b",")) > MAX_VALUES:
        raise ValueError(f"the body has more than {MAX_VALUES:,} values")
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"the body is nested deeper than {MAX_DEPTH} levels")
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        raise ValueError("the body is not JSON") from None
    given = body.get("session_hash") if isinstance(body, dict) else None
    if given is not None and not (isinstance(given, str) and len(given) <= MAX_HASH):
        raise ValueError(f"the session hash must be a text of at most {MAX_HASH} characters")
    return body


def hash_fits(scope: Scope) -> bool:
    """Whether every session hash in the address is short."""
    hashes = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [])
    if found := HEARTBEAT.match(scope["path"]):
        hashes = [*hashes, found[1]]
    return all(len(each) <= MAX_HASH for each in hashes)


def same_site(scope: Scope, hosts: Collection[str | None] | None) -> bool:
    """Whether a request names a host of this studio and comes from no page of another site.

    A page of another site whose name was bound to this machine (DNS rebinding) sends its own name as the host.

    Args:
        scope: Of the request.
        hosts: Names of this studio, None for any.
    """
    headers = dict(scope["headers"])
    host = _name(b"//" + headers.get(b"host", b""))
    if host is None or (hosts is not None and host not in hosts):
        return False
    origin = headers.get(b"origin")
    name = None if origin is None else _name(origin)
    return origin is None or (name is not None and name in (host, *(hosts or ())))


def _name(address: bytes) -> str | None:
    try:
        return urlsplit(address.decode("latin-1")).hostname
    except ValueError:
        return None
