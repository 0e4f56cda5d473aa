"""Serve the page and its routes."""

from __future__ import annotations

import atexit
import gc
import json
import socket
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fkv.debate.endpoint import Endpoint
from fkv.models.base import VideoModel
from fkv.studio.live.limits import Limits
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import module_route, style
from fkv.studio.serving.admission import PLACES, Admission
from fkv.studio.serving.connections import bound, most_connections
from fkv.studio.serving.health import health
from fkv.studio.serving.health import metrics as metrics_routes
from fkv.studio.serving.mcp import answer_in_json
from fkv.studio.serving.middleware import MAX_UPLOAD, Gate
from fkv.studio.serving.requests import LOOPBACK
from fkv.studio.tabs.atlas import figure_route
from fkv.studio.tabs.board import board_routes

from .folder import temporary_folder
from .page import build
from .theme import theme

THREADS = 96  # worker threads: one per queued visitor plus their events
SESSIONS = 100  # sessions whose component state Gradio keeps


def check_port(host: str, port: int) -> None:
    """Check that the studio can listen at this address. Raises ValueError if not."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be a number from 0 to 65535, not {port}")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ValueError(
            f"cannot listen at {host}:{port} ({error.strerror or error}); choose another address with --host and --port"
        ) from None


def chunk_route(registry: Registry) -> Route:
    """`/stage/KEY/NUMBER`: an encoded chunk from memory. Nothing of the address reaches the file system."""

    async def chunk(request: Request) -> Response:
        data = registry.chunk(request.path_params["key"], request.path_params["number"])
        if data is None:
            return Response(status_code=404)
        return Response(
            data, media_type="application/octet-stream", headers={"Cache-Control": "private, max-age=3600, immutable"}
        )

    return Route("/stage/{key:str}/{number:int}", chunk)


def takes_files(page: gr.Blocks) -> bool:
    """Whether any event of a page takes a file."""
    models = (getattr(part, "data_model", None) for function in page.fns.values() for part in function.inputs)
    return any("FileData" in json.dumps(model.model_json_schema()) for model in models if model is not None)


def serve(
    model: VideoModel,
    host: str,
    port: int,
    share: bool = False,
    root_path: str | None = None,
    limits: Limits | None = None,
    metrics: bool = False,
    mcp: bool = False,
    block: bool = True,
    folder: Path | None = None,
    proxies: str = "",
    endpoint: Endpoint | None = None,
) -> gr.Blocks:
    """Serve the page until the process is told to end.

    Args:
        model: What generates.
        host: Address to listen at.
        port: Port to listen at.
        share: Also open a public Gradio link.
        root_path: Path under which a proxy serves the page.
        limits: What visitors may take of the machine.
        metrics: Also serve `/metrics`.
        mcp: Also offer the endpoints as tools (Model Context Protocol).
        block: Wait for the end; otherwise return once the page is served.
        folder: For temporary files, by default a new one.
        proxies: Addresses and networks, with commas between them, whose `X-Forwarded-For` names the visitor.
        endpoint: The director's language model, None for none.

    Raises:
        ValueError: If metrics or mcp need a package that is missing.
    """
    if mcp and find_spec("mcp") is None:
        raise ValueError('--mcp needs a package: pip install "gradio[mcp]"')
    if mcp:
        answer_in_json()
    registry = Registry(limits)
    routes = [
        module_route(),
        chunk_route(registry),
        figure_route(model),
        *board_routes(model),
        health(model, registry),
        *(metrics_routes(registry) if metrics else ()),
    ]
    folder = folder or temporary_folder()
    page = build(model, registry, endpoint).queue(max_size=PLACES, api_open=False)
    most = most_connections()
    bound(most, proxies)
    gate = Middleware(
        Gate,
        folder=folder,
        uploads=takes_files(page),
        hosts={*LOOPBACK, urlsplit(root_path or "").hostname} if host in LOOPBACK and not share else None,
        admit=Admission(page).refuse,
        share=most // 2,
    )
    gc.enable()
    gc.freeze()  # so that `errors.free` does not scan what stays loaded after every run
    atexit.register(gc.unfreeze)
    page.launch(
        server_name=host,
        server_port=port,
        share=share,
        root_path=root_path,
        theme=theme(),
        head=f"<style>{style()}</style>",
        app_kwargs={"routes": routes, "middleware": [gate]},
        footer_links=["api"],
        ssr_mode=False,
        pwa=False,
        show_error=False,
        mcp_server=mcp,
        run_history=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
        max_threads=THREADS,
        state_session_capacity=SESSIONS,
        quiet=not block,
        prevent_thread_lock=not block,
    )
    return page
