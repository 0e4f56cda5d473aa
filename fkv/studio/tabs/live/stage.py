"""The stage: pictures, timeline, cache X-ray and charts, which `assets/studio/stage.js` draws."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fkv.models.base import VideoModel
from fkv.studio.live import sample_run
from fkv.studio.live.attention_probe import first_focus
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset, script
from fkv.studio.media.protocol import page_facts


def stage(model: VideoModel, recorded: dict[str, Any]) -> gr.HTML:
    """Build the stage. recorded : what it shows at first."""
    return gr.HTML(
        recorded,
        html_template=page_asset("stage.html"),
        js_on_load=script("stage", "look", "branch", "undo", "policy"),
        streams=["A", "B"],
        facts=page_facts(),
        focus=first_focus(model.geometry, model.roles),
        apply_default_css=False,
        elem_id="fkv-stage",
    )


def recorded_run(model: VideoModel, registry: Registry) -> dict[str, Any]:
    """What the stage shows at first: a recording of this very model; empty where there is none."""
    replay = sample_run.replay(model)
    if replay is None:
        return {}
    run, manifest = replay
    registry.pin(run)
    return manifest
