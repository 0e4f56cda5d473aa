"""Put the page on the network: routes, temporary files, how it ends."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..models.base import VideoModel
from .files import asset
from .page import build
from .sessions import Limits, Registry
from .theme import theme

FOLDER = "forcing-kv-studio-"


def check_port(host: str, port: int) -> None:
    """Raises ValueError when nothing can listen at this address."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"cannot listen at {host}:{port} ({reason}); choose another with --host and --port") from None


def chunk_route(registry: Registry) -> Route:
    """`/stage/KEY/NUMBER`: an encoded chunk from memory. Nothing of the address reaches the file system."""

    async def chunk(request: Request) -> Response:
        data = registry.chunk(request.path_params["key"], request.path_params["number"])
        if data is None:
            return Response(status_code=404)
        return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "private, max-age=3600, immutable"})

    return Route("/stage/{key:str}/{number:int}", chunk)


def temporary_folder() -> Path:
    """A folder of this process for what Gradio writes; folders of processes that are gone are removed."""
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{FOLDER}*-*"):
        owner = old.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _end(folder: Path) -> None:
    """Leave at once, even in the middle of a chunk; everything but this folder lives in memory."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def serve(model: VideoModel, host: str, port: int, share: bool = False, root_path: str | None = None, limits: Limits | None = None) -> None:
    """Serve the page until the process is told to end."""
    folder = temporary_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    signal.signal(signal.SIGTERM, lambda *_: _end(folder))
    registry = Registry(limits)
    build(model, registry).queue(max_size=128).launch(
        server_name=host, server_port=port, share=share, root_path=root_path, theme=theme(), head=f"<style>{asset('style.css')}</style>",
        app_kwargs={"routes": [chunk_route(registry)]}, footer_links=["api"], ssr_mode=False, pwa=False, show_error=False, mcp_server=False,
    )  # fmt: skip
