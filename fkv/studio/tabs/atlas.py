"""The Atlas tab: the head splits that were released with the paper beside those of the running model, as figures and
downloads.

Figures are drawn when the tab is opened, files when they are downloaded.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fkv.analysis.splits import with_released
from fkv.models.base import VideoModel
from fkv.studio.media.assets import page_asset, script

if TYPE_CHECKING:
    from fkv.analysis.figures import View

NO_FIGURE = "No such figure."
FORMATS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv"}


def atlas_tab(model: VideoModel) -> None:
    """Build the tab inside the page that is being built."""
    _figure(model, "role-atlas", ())
    _figure(model, "head-map", tuple(with_released(model.roles)))


def _figure(model: VideoModel, name: str, models: tuple[str, ...]) -> None:
    links = gr.HTML(
        {"name": name, "models": models},
        html_template=page_asset("atlas.html"),
        js_on_load=script("atlas", "draw"),
        apply_default_css=False,
    )
    with gr.Column(elem_classes="fkv-atlas", elem_id=f"fkv-{name}"):
        plot = gr.Plot(show_label=False, container=False)

    def draw(event: gr.EventData) -> Any:  # Gradio reads the types, so they are imported
        try:
            return view_of(model, name, event._data["model"]).plotly(event._data["theme"])
        except (KeyError, TypeError):
            raise gr.Error(NO_FIGURE, print_exception=False) from None

    links.draw(draw, None, plot, queue=False, show_progress="hidden", api_visibility="private")


def view_of(model: VideoModel, name: str, chosen: str) -> View:
    """Return the figure called `name`, of the chosen model where it shows one. Raises KeyError for unknown names."""
    from fkv.analysis import figures

    models = with_released(model.roles)
    views: dict[str, Callable[[], View]] = {
        "role-atlas": lambda: figures.RoleAtlas(models),
        "head-map": lambda: figures.HeadMap(models[chosen]),
    }
    return views[name]()


def figure_route(model: VideoModel) -> Route:
    """`/atlas/NAME.ENDING?model=&theme=`: a figure as a file."""
    drawing = threading.Lock()

    @lru_cache(maxsize=32)
    def files(name: str, chosen: str, theme: Any) -> dict[str, bytes]:
        view = view_of(model, name, chosen)
        with drawing, tempfile.TemporaryDirectory() as folder:
            return {path.suffix[1:]: path.read_bytes() for path in view.save(folder, theme)}

    def figure(request: Request) -> Response:
        name = request.path_params["name"]
        ending = request.path_params["ending"]
        query = request.query_params
        chosen = query.get("model", "") if name == "head-map" else ""
        try:
            data = files(name, chosen, query.get("theme", "light"))[ending]
        except (KeyError, ValueError):
            return Response(NO_FIGURE, 404)
        headers = {"Content-Disposition": f'attachment; filename="{name}.{ending}"'}
        return Response(data, media_type=FORMATS[ending], headers=headers)

    return Route("/atlas/{name:str}.{ending:str}", figure)
