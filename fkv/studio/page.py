"""The page: its header and its tabs, each of which has a file in `tabs`; the work behind them is in `live`."""

from __future__ import annotations

from html import escape

import gradio as gr

from fkv.debate.endpoint import Endpoint
from fkv.models.base import VideoModel
from fkv.report import device_name
from fkv.studio.live.comparison import player
from fkv.studio.live.sessions import Registry
from fkv.studio.serving.calls import Page
from fkv.studio.serving.endpoints import add_endpoints
from fkv.studio.tabs.atlas import atlas_tab
from fkv.studio.tabs.board import board_tab
from fkv.studio.tabs.compare import compare_tab, visitor
from fkv.studio.tabs.director import director_drawer, directs
from fkv.studio.tabs.explore import explore_tab, explores
from fkv.studio.tabs.heads import heads_tab
from fkv.studio.tabs.live import live_tab

from .live import zerogpu
from .tabs import about


def build(model: VideoModel, registry: Registry, endpoint: Endpoint | None = None) -> gr.Blocks:
    """Build the studio for one model.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        endpoint: The director's language model, None for none.
    """

    def leave(request: gr.Request) -> None:
        registry.close(request.session_hash)
        registry.close(visitor(request))
        registry.close(directs(request))
        registry.close(explores(request))

    play = player(model, registry.limits)
    with Page(title="Forcing-KV Studio", fill_width=True, analytics_enabled=False, delete_cache=(3600, 7200)) as page:
        gr.HTML(_header(model), elem_id="fkv-header", apply_default_css=False)
        notices = [zerogpu.notice(registry.limits)] if zerogpu.here() else []
        for sentence in [*notices, *model.assumed]:
            gr.HTML(f'<p class="fkv-facts">{escape(sentence)}</p>', apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Live", id="live"):
                controls = live_tab(page, model, registry)
                with controls.drawers:
                    director_drawer(model, registry, endpoint, controls.storyboard.changes)
            if not zerogpu.here():  # whose GPU is lent for calls whose results can be sent to another process
                with gr.Tab("Explore", id="explore"):
                    explore_tab(model, registry, controls)
            with gr.Tab("Heads", id="heads"):
                heads_tab(model, registry, controls)
            with gr.Tab("Atlas", id="atlas"):
                atlas_tab(model)
            with gr.Tab("Compare", id="compare"):
                compare_tab(model, registry, play)
            with gr.Tab("Board", id="board"):
                board_tab()
            with gr.Tab("How it works", id="how"):
                gr.HTML(about.html(terms=True), apply_default_css=False)
        add_endpoints(model, registry, play)
        page.unload(leave)
    return page


def _header(model: VideoModel) -> str:
    device, precision = device_name(model.device), model.precision
    return (
        '<header class="fkv-head"><h1>Forcing-KV <span>Studio</span></h1>'
        f'<p class="fkv-facts"><span>model <b>{escape(model.name)}</b></span>'
        f"<span>{escape(device)}, {precision}</span></p>"
        '<nav aria-label="View"><button type="button" data-fkv="theme">Light or dark</button>'
        '<button type="button" data-fkv="talk">Talk mode</button>'
        '<button type="button" data-fkv="help" aria-label="Keyboard help">?</button></nav></header>'
    )
