"""The Heads tab: which heads are static, where each looks while a stream runs, and what happens when a role is changed.

What a head looks at comes with the chunks (`watch`); the script in `assets/studio` draws it, and tells what to watch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from .. import roles as role_files
from ..models.base import VideoModel
from ..roles import HeadRoles
from . import changes
from .files import asset
from .sessions import Registry
from .storyboard import at_threshold
from .trouble import sentence
from .watch import Watch

PARTS = ("heads", "heads_grid", "heads_roles", "heads_detail", "heads_patches", "heads_tab")
SCRIPTS = ("charts.js", "xray.js", *(f"{part}.js" for part in PARTS))


def heads_tab(model: VideoModel, registry: Registry) -> None:
    """Build the tab inside the page that is being built."""
    geometry = model.geometry
    facts = {
        "model": model.name, "layers": geometry.layers, "heads": geometry.heads, "rows": geometry.rows, "cols": geometry.cols,
        "perLatent": model.video_frames_per_latent, "profile": role_files.to_json(model.roles) if model.roles else None,
    }  # fmt: skip
    page = gr.HTML(
        facts, html_template=asset("heads.html"), js_on_load="\n".join(map(asset, SCRIPTS)), apply_default_css=False, elem_id="fkv-heads"
    )

    def look(event: gr.EventData, request: gr.Request) -> None:
        """Watch one patch of one head of a stream; nothing for a stream of None."""
        if run := registry.of(request.session_hash):
            run.watch = _said(lambda asked: asked["stream"] and Watch.of(**asked, geometry=geometry), event)

    def change_roles(event: gr.EventData, request: gr.Request) -> None:
        """Give the streams of the run these static heads."""
        if run := registry.of(request.session_hash):
            run.ask(changes.roles(_said(lambda asked: roles_of(model, **asked), event)))

    def silence(event: gr.EventData, request: gr.Request) -> None:
        """Take the history of a head of a stream away."""
        if run := registry.of(request.session_hash):
            watch = _said(lambda asked: Watch.of(**asked, row=0, col=0, geometry=geometry), event)
            run.ask(changes.silence(watch.stream, (watch.focus.layer, watch.focus.head)))

    at_once = {"queue": False, "show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    page.look(look, None, None, **at_once)
    page.roles(change_roles, None, None, **at_once)
    page.silence(silence, None, None, **at_once)


def roles_of(model: VideoModel, static_heads: Any, threshold: float | None = None) -> HeadRoles:
    """Roles with these static heads, layer by layer, and the model's own scores; with a threshold, those that it gives.

    Raises ValueError when there are no such heads, or no scores for a threshold.
    """
    if threshold is not None:
        return at_threshold(model.roles, threshold)
    shape = {"num_layers": model.transformer.layers, "num_heads": model.transformer.heads}
    roles = role_files.from_json(shape | {"static_heads": static_heads})
    return replace(model.roles, static=roles.static) if model.roles else roles


def _said(read: Any, event: gr.EventData) -> Any:
    """What the page asks for; a request that makes no sense is answered by a sentence."""
    try:
        return read(event._data)
    except (ValueError, TypeError, KeyError) as error:
        raise gr.Error(sentence(error), print_exception=False) from None
