"""What reaches the server: Gradio's routes that the studio does not use are closed, and bodies and uploads are
bounded."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# Fetching for others, editing the app, recordings, saved links, monitoring: a visitor needs none of it.
CLOSED = re.compile(
    r"(/gradio_api)?/(proxy=|dev/|deep_link|process_recording|vibe-|undo-vibe|run-history|runs|profiling|stream/|custom_component/"
    r"|file[=/]/*https?:)|/monitoring|/login|/logout"
)
NOTHING = "Not found"
MAX_BODY = 1 << 20  # bytes of a request
MAX_UPLOAD = 16 << 20  # bytes of one upload
MAX_UPLOADS = 256 << 20  # bytes of the uploads of all visitors


class TooLarge(Exception):
    """A request body exceeds its limit."""


class Gate:
    """ASGI middleware: answers 404 on closed routes, 413 to a body that is too large, 507 while the upload storage is
    full.

    Args:
        app: The application behind it.
        folder: Where uploads and clips are stored.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app = app
        self.folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        upload = path.rstrip("/").endswith("/upload")
        limit = MAX_UPLOAD if upload else MAX_BODY
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if CLOSED.match(path):
            await PlainTextResponse(NOTHING, 404)(scope, receive, send)
        elif stated.isdigit() and int(stated) > limit:
            await _too_large(limit)(scope, receive, send)
        elif upload and stored(self.folder) + MAX_UPLOAD > MAX_UPLOADS:
            await PlainTextResponse("Upload storage is full; try again in an hour.", 507)(scope, receive, send)
        else:
            await self._bounded(limit, scope, receive, send)

    async def _bounded(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with at most `limit` bytes of its body; one that breaks the app is answered without a
        traceback."""
        begun = False

        async def started(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, _counted(receive, limit), started)
        except TooLarge:
            if begun:
                raise
            await _too_large(limit)(scope, receive, send)
        except Exception as error:
            if begun:
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            facts = {
                "path": scope["path"],
                "error": type(error).__name__,
                "at": f"{Path(place.filename).name}:{place.lineno}",
            }
            log.warning("request refused", extra={"facts": facts})
            await PlainTextResponse("Bad request", 400)(scope, receive, send)


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
    return PlainTextResponse(f"Request exceeds {limit >> 20} MiB", 413)


def stored(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            pass  # removed in the meantime
    return total
