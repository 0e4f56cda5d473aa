"""The Atlas tab: the head splits that were released with the paper beside the model's own, to look at and to download.

Figures are drawn when the tab is opened, files when they are asked for.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fkv.analysis import figures
from fkv.analysis.export import Panel, write_files
from fkv.models.base import VideoModel
from fkv.roles import HeadRoles
from fkv.studio.media.assets import page_asset

FIGURES = {
    "role-atlas": (figures.role_atlas, figures.draw_role_atlas, figures.atlas_table),
    "head-map": (figures.head_map, figures.draw_head_map, figures.head_table),
}
"""How to show each figure, to draw it for a file, and to tabulate it."""
NO_FIGURE = "There is no such figure."
FORMATS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv"}


def atlas_tab(model: VideoModel) -> None:
    """Build the tab inside the page that is being built."""
    _figure(model, "role-atlas", ())
    _figure(model, "head-map", tuple(figures.with_own(model.roles)))


def _figure(model: VideoModel, name: str, models: tuple[str, ...]) -> None:
    links = gr.HTML(
        {"name": name, "models": models},
        html_template=page_asset("atlas.html"),
        js_on_load=page_asset("atlas.js"),
        apply_default_css=False,
    )
    with gr.Column(elem_classes="fkv-atlas"):
        plot = gr.Plot(show_label=False, container=False)

    def draw(event: gr.EventData) -> go.Figure:
        try:
            return FIGURES[name][0](subject(model, name, event._data["model"]), event._data["theme"])
        except (KeyError, TypeError):
            raise gr.Error(NO_FIGURE, print_exception=False) from None

    links.draw(draw, None, plot, queue=False, show_progress="hidden", api_visibility="private")


def subject(model: VideoModel, name: str, which: str) -> Mapping[str, HeadRoles] | HeadRoles:
    """What a figure is of: all splits, or that of the model called `which`. Raises KeyError for an unknown one."""
    models = figures.with_own(model.roles)
    return models if name == "role-atlas" else models[which]


def figure_route(model: VideoModel) -> Route:
    """`/atlas/NAME.ENDING?model=&theme=`: a figure as a file."""
    drawing = threading.Lock()

    @lru_cache(maxsize=32)
    def files(name: str, which: str, theme: Any) -> dict[str, bytes]:
        of, (show, draw, table) = subject(model, name, which), FIGURES[name]
        with drawing, tempfile.TemporaryDirectory() as folder:
            written = write_files([Panel(name, show(of, theme), draw(of, theme), table(of))], folder, theme)
            return {path.suffix[1:]: Path(path).read_bytes() for path in written}

    def figure(request: Request) -> Response:
        name, ending, ask = request.path_params["name"], request.path_params["ending"], request.query_params
        try:
            data = files(name, ask.get("model", "") if name == "head-map" else "", ask.get("theme", "light"))[ending]
        except (KeyError, ValueError):
            return Response(NO_FIGURE, 404)
        return Response(
            data, media_type=FORMATS[ending], headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'}
        )

    return Route("/atlas/{name:str}.{ending:str}", figure)
