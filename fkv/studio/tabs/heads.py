"""The Heads tab: which heads are static, where each looks while a stream runs, and what happens when a role is changed.

What a head looks at comes with the chunks (`watch`); the script in `assets/studio` draws it, and tells what to watch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from fkv import roles as role_files
from fkv.cache import Geometry
from fkv.models.base import VideoModel
from fkv.policies import kinds, parse, write
from fkv.policies.silenced import Head, silenced
from fkv.roles import HeadRoles
from fkv.storyboard import SetRoles, SilenceHead, at_threshold
from fkv.studio.live.attention_probe import Watch, profiled
from fkv.studio.errors import sentence
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset

from .live import Form, parted

PARTS = ("heads", "heads_grid", "heads_roles", "heads_detail", "heads_patches", "heads_tab")
SCRIPTS = ("charts.js", "xray.js", *(f"{part}.js" for part in PARTS))


def heads_tab(model: VideoModel, registry: Registry, form: Form) -> None:
    """Build the tab inside the page that is being built. form : what follows when heads are changed here."""
    geometry = model.geometry
    facts = {
        "model": model.name,
        "layers": geometry.layers,
        "heads": geometry.heads,
        "rows": geometry.rows,
        "cols": geometry.cols,
        "perLatent": model.video_frames_per_latent,
        "profile": role_files.to_json(model.roles) if model.roles else None,
        "profiled": profiled(model.roles),
        "kinds": kinds.table(),
    }
    page = gr.HTML(
        facts,
        html_template=page_asset("heads.html"),
        js_on_load="\n".join(map(page_asset, SCRIPTS)),
        apply_default_css=False,
        elem_id="fkv-heads",
    )

    def look(event: gr.EventData, request: gr.Request) -> None:
        """Watch one patch of one head of a stream; nothing for a stream of None."""
        if run := registry.of(request.session_hash):
            run.watch = _said(lambda asked: asked["stream"] and Watch.of(**asked, geometry=geometry), event)

    def change_roles(event: gr.EventData, request: gr.Request) -> Any:
        """Give the streams of the run these static heads. A threshold that gives them is that of the next run, too."""
        roles = _said(lambda asked: roles_of(model, **asked), event)
        if run := registry.of(request.session_hash):
            run.add_change(SetRoles(roles))
        return (
            gr.skip()
            if roles.threshold is None
            else gr.Slider(value=roles.threshold, info=parted(model, roles.threshold))
        )

    def silence(a: str, b: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Take the history of a head of a stream away, in the next run, too; or let it have one again there."""
        name, head, silent = _said(lambda asked: silenced_head(geometry, **asked), event)
        if silent and (run := registry.of(request.session_hash)):
            run.add_change(SilenceHead(name, head))
        try:
            follow = {name: write(silenced(parse({"A": a, "B": b}[name]), head, silent))}
        except (ValueError, TypeError):  # a field that holds no policy stays as it is
            follow = {}
        return [follow.get(field, gr.skip()) for field in form.policies]

    at_once = {"queue": False, "show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    page.look(look, None, None, **at_once)
    page.roles(change_roles, None, form.threshold, **at_once)
    page.silence(silence, list(form.policies.values()), list(form.policies.values()), **at_once)


def roles_of(model: VideoModel, static_heads: Any, threshold: float | None = None) -> HeadRoles:
    """Roles with these static heads, layer by layer, and the model's own scores; with a threshold, those that it gives.

    Raises ValueError when there are no such heads, or no scores for a threshold.
    """
    if threshold is not None:
        return at_threshold(model.roles, threshold)
    shape = {"num_layers": model.transformer.layers, "num_heads": model.transformer.heads}
    roles = role_files.from_json(shape | {"static_heads": static_heads})
    return replace(model.roles, static=roles.static) if model.roles else roles


def silenced_head(geometry: Geometry, stream: Any, layer: Any, head: Any, silent: Any) -> tuple[str, Head, bool]:
    """A stream, a head of it, and whether it is to be silent. Raises ValueError when there are none such."""
    if stream not in ("A", "B") or not isinstance(silent, bool):
        raise ValueError(f"a stream is A or B, and a head silent or not, not {stream!r:.20} and {silent!r:.20}")
    watch = Watch.of(stream, layer, head, 0, 0, geometry)
    return stream, (watch.focus.layer, watch.focus.head), silent


def _said(read: Any, event: gr.EventData) -> Any:
    """What the page asks for; a request that makes no sense is answered by a sentence."""
    try:
        return read(event._data)
    except (ValueError, TypeError, KeyError) as error:
        raise gr.Error(sentence(error), print_exception=False) from None
