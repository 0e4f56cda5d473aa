"""What reaches the server: Gradio's routes that the studio does not use are closed, bodies and uploads are bounded, and
calls are admitted only where there are places for them."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from anyio import to_thread
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fkv.studio.live.disconnect import close, marked

from .requests import hash_fits, read_json, same_site

log = logging.getLogger(__name__)

# Fetching for others, editing the app, recordings, saved links, monitoring: a visitor needs none of it.
CLOSED = re.compile(
    r"(/gradio_api)?/(proxy=|dev/|deep_link|process_recording|vibe-|undo-vibe|run-history|runs|profiling|stream/|custom_component/"
    r"|file[=/]/*https?:)|/monitoring|/login|/logout"
)
NOTHING = "Not found"
FOREIGN = JSONResponse(
    {"detail": "This name or site may not call this studio; --root-path ADDRESS tells the studio the name of a proxy."},
    403,
)
END: Message = {"type": "http.response.body", "body": b""}
BUSY = PlainTextResponse("Too many requests from this address are in progress; try again shortly.", 503)
MAX_BODY = 256 << 10  # bytes of a request: longer texts keep Python busy, and Gradio remembers what a session sent
MAX_UPLOAD = 16 << 20  # bytes of one upload
MAX_UPLOADS = 256 << 20  # bytes of the uploads of all visitors
MCP = re.compile(r"(/gradio_api)?/mcp(/|$)")
UPLOAD = re.compile(r"(/gradio_api)?/upload(_progress)?/?$")
API = re.compile(r"(/gradio_api)?/(info|openapi\.json)/?$")
DIRECT = re.compile(r"(/gradio_api)?/(run|api|component_server)(/|$)")  # calls that do not wait in the queue
DIRECT_CALLS = 32  # of one address under way
WORK = re.compile(
    f"{API.pattern}|{DIRECT.pattern}|/(config/?|theme\\.css|metrics)?$|/(atlas|board)/|(/gradio_api)?/mcp/schema/?$"
)
"""What takes a worker thread, or a while of the event loop."""
TURNS = 2  # answers of one address that are worked on at once; Python runs one thread at a time


class TooLarge(Exception):
    """A request body exceeds its limit."""


Admit = Callable[[str, Any, str], "str | None"]
"""From path, parsed body and address of a call, why there is no place for it; None where there is."""


class Uploads:
    """Room for uploads, counted off the event loop; those under way count in full."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._under_way = 0

    @asynccontextmanager
    async def room(self) -> AsyncIterator[bool]:
        """Whether one more upload fits; it holds its room until the block ends."""
        self._under_way += 1
        try:
            bytes_stored = await to_thread.run_sync(stored, self._folder)
            yield bytes_stored + self._under_way * MAX_UPLOAD <= MAX_UPLOADS
        finally:
            self._under_way -= 1


class Gate:
    """ASGI middleware: refuses what the application behind it should not see.

    It answers 404 on closed routes, 400 to JSON that no event can want, 403 to an MCP call from another site, 413 to a
    body that is too large, 503 where there is no place for a call or an address has too many requests under way, and
    507 while the upload storage is full.

    Args:
        app: The application behind it.
        folder: Where uploads and clips are stored.
        uploads: Whether any event takes a file; the upload route is closed otherwise.
        hosts: Names under which the studio may be called; None allows any, but MCP never answers another site.
        admit: Whether there is a place for a call.
        share: Requests of one address that may be under way, streams of answers included.
    """

    def __init__(
        self,
        app: ASGIApp,
        folder: Path,
        uploads: bool = False,
        hosts: Collection[str | None] | None = None,
        admit: Admit = lambda path, body, address: None,
        share: int = 512,
    ) -> None:
        self.app = app
        self.share = share
        self._under_way: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self.hosts = hosts
        self.admit = admit
        self.uploads = Uploads(folder) if uploads else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self._place(_address(scope), self.share) as fits:
            await (self._answer if fits else BUSY)(scope, receive, send)

    @contextmanager
    def _place(self, key: str, most: int) -> Iterator[bool]:
        """Whether there is a place for one more request under a key; it is taken until the block ends."""
        fits = self._under_way[key] < most
        self._under_way[key] += fits
        try:
            yield fits
        finally:
            self._under_way[key] -= fits
            if not self._under_way[key]:
                del self._under_way[key]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        upload = path.rstrip("/").endswith("/upload")
        limit = MAX_UPLOAD if upload else MAX_BODY
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if API.match(path):
            scope["app"].api_info = None  # Gradio keeps what it told the first caller, whose headers name the studio
        if CLOSED.match(path) or (UPLOAD.match(path) and self.uploads is None):
            await PlainTextResponse(NOTHING, 404)(scope, receive, send)
        elif stated.isdigit() and int(stated[:20]) > limit:
            await _too_large(limit)(scope, receive, send)
        elif not hash_fits(scope):
            await PlainTextResponse("Bad request", 400)(scope, receive, send)
        elif upload and self.uploads:
            async with self.uploads.room() as fits:
                full = PlainTextResponse("Upload storage is full; try again in an hour.", 507)
                await (self._bounded(limit, scope, receive, send) if fits else full(scope, receive, send))
        elif MCP.match(path):
            await self._mcp(scope, receive, send)
        elif scope["method"] == "POST" and self.hosts is not None and not same_site(scope, self.hosts):
            await FOREIGN(scope, receive, send)
        elif scope["method"] == "POST" and DIRECT.match(path):
            with self._place(f"calls of {_address(scope)}", DIRECT_CALLS) as fits:
                await (self._post if fits else BUSY)(scope, receive, send)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._bounded(limit, scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a call once its body is read and found to be sound, and there is a place for it."""
        try:
            data = await _read(receive, MAX_BODY)
            body = read_json(data) if data.strip() else None
        except TooLarge:
            await _too_large(MAX_BODY)(scope, receive, send)
        except ValueError as error:
            await PlainTextResponse(f"Bad request: {error}", 400)(scope, receive, send)
        except ClientDisconnect:
            pass
        else:
            if reason := self.admit(scope["path"], body, _address(scope)):
                await JSONResponse({"detail": reason}, 503)(scope, receive, send)
            else:
                await self._bounded(MAX_BODY, scope, _replayed(data, receive), send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on an MCP call of this site; whoever runs it can see whether its client is still there."""
        if not same_site(scope, self.hosts):
            await FOREIGN(scope, receive, send)
            return
        with marked(scope) as call:

            async def watched() -> Message:
                message = await receive()
                if message["type"] == "http.disconnect":
                    close(call)
                return message

            if scope["method"] == "POST":
                await self._post(scope, watched, send)
            else:
                await self._bounded(MAX_BODY, scope, watched, send)

    async def _bounded(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with at most `limit` bytes of its body; one that breaks the app is answered without a
        traceback."""
        begun = False

        async def started(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if WORK.match(scope["path"]):
                await self._in_turn(scope, _counted(receive, limit), started)
            else:
                await self.app(scope, _counted(receive, limit), started)
        except TooLarge:
            await (send(END) if begun else _too_large(limit)(scope, receive, send))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            facts = {
                "path": scope["path"],
                "error": type(error).__name__,
                "at": f"{Path(place.filename).name}:{place.lineno}",
            }
            log.warning("answer broken off" if begun else "request refused", extra={"facts": facts})
            await (send(END) if begun else PlainTextResponse("Bad request", 400)(scope, receive, send))

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on once fewer than `TURNS` of its address are worked on, which it is until the answer begins:
        whoever asks for a lot, or reads slowly, keeps nobody else waiting."""
        address = _address(scope)
        turns = self._turns.get(address) or self._turns.setdefault(address, asyncio.Semaphore(TURNS))
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(turns)

            async def answered(message: Message) -> None:
                await turn.aclose()
                await send(message)

            await self.app(scope, receive, answered)


def _address(scope: Scope) -> str:
    return (scope.get("client") or ("",))[0]


async def _read(receive: Receive, limit: int) -> bytes:
    """The body of a request. Raises `TooLarge` beyond `limit` bytes and `ClientDisconnect` where it breaks off."""
    parts = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(data: bytes, receive: Receive) -> Receive:
    """Receive a body that was read before, and then what comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return replayed


def _counted(receive: Receive, limit: int) -> Callable:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge
        return message

    return counted


def _too_large(limit: int) -> PlainTextResponse:
    return PlainTextResponse(f"Request exceeds {limit >> 10:,} KiB", 413)


def stored(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            pass  # removed in the meantime
    return total
