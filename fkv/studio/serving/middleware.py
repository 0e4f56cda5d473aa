"""What reaches the server at all: Gradio's routes that the studio does not use are shut, and bodies and uploads are bounded."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

SHUT = re.compile(
    r"(/gradio_api)?/(proxy=|dev/|deep_link|process_recording|vibe-|undo-vibe|run-history|runs|profiling|stream/|custom_component/"
    r"|file[=/]/*https?:)|/monitoring|/login|/logout"
)
"""Fetching for others, editing the app, recordings, saved links, monitoring: a visitor needs none of it."""

NOTHING = "There is nothing here."
MAX_BODY = 1 << 20
MAX_UPLOAD = 16 << 20
MAX_UPLOADS = 256 << 20


class TooLarge(Exception):
    """More came than the request may bring."""


class Gate:
    """ASGI middleware. Answers 404 where nothing is open, 413 to a body that is too large, 507 while the uploads of all visitors
    together fill their share of the disk. `folder`: where uploads and clips lie."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        upload = path.rstrip("/").endswith("/upload")
        limit = MAX_UPLOAD if upload else MAX_BODY
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if SHUT.match(path):
            await PlainTextResponse(NOTHING, 404)(scope, receive, send)
        elif stated.isdigit() and int(stated) > limit:
            await _too_large(limit)(scope, receive, send)
        elif upload and held(self.folder) + MAX_UPLOAD > MAX_UPLOADS:
            await PlainTextResponse("Too many files lie here already; try again in an hour.", 507)(scope, receive, send)
        else:
            await self._bounded(limit, scope, receive, send)

    async def _bounded(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, but no more than `limit` bytes of its body; one that breaks the app is answered, not shown why."""
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
            await PlainTextResponse("This request is not one that the studio understands.", 400)(scope, receive, send)


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
    return PlainTextResponse(f"That is too large; at most {limit >> 20} MiB are taken here.", 413)


def held(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            pass  # gone between the two looks
    return total
