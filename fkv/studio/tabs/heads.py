"""The Heads tab: which heads are static, where each attends while a stream runs, and what happens when a role is
changed.

Attention comes with the chunks (`live.attention_probe`); the script in `assets/studio` draws it, and says what to
watch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from fkv import roles as role_files
from fkv.models.base import VideoModel
from fkv.pages import Geometry
from fkv.policies import parse, write
from fkv.policies.silenced import Head, silenced
from fkv.roles import HeadRoles
from fkv.storyboard import SetRoles, SilenceHead, at_threshold
from fkv.studio.errors import sentence
from fkv.studio.live.attention_probe import Watch, profiled
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset, script
from fkv.studio.media.protocol import page_facts

from .live import Controls


def heads_tab(model: VideoModel, registry: Registry, controls: Controls) -> None:
    """Build the tab inside the page that is being built.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        controls: Of the Live tab; its policies and its threshold follow when heads are changed here.
    """
    geometry = model.geometry
    facts = {
        "model": model.name,
        "layers": geometry.layers,
        "heads": geometry.heads,
        "rows": geometry.rows,
        "cols": geometry.cols,
        "profile": role_files.to_json(model.roles) if model.roles else None,
        "profiled": profiled(model.roles),
    }
    page = gr.HTML(
        facts,
        html_template=page_asset("heads.html"),
        js_on_load=script("heads/tab", "roles", "silence"),
        facts=page_facts(),
        apply_default_css=False,
        elem_id="fkv-heads",
    )

    def look(event: gr.EventData, request: gr.Request) -> None:
        """Watch one patch of one head of a stream; with a stream of None watch nothing."""
        if run := registry.of(request.session_hash):
            run.watch = _read(lambda data: Watch.of(**data, geometry=geometry) if data["stream"] else None, event)

    def change_roles(event: gr.EventData, request: gr.Request) -> Any:
        """Give the streams of the run these static heads. A threshold that gives them also applies to the next run."""
        roles = _read(lambda data: roles_of(model, **data), event)
        if run := registry.of(request.session_hash):
            run.add_change(SetRoles(roles))
        return gr.skip() if roles.threshold is None else roles.threshold

    def silence(a: str, b: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Silence a head of a stream, also in the next run; or unsilence it from the next run on."""
        name, head, silent = _read(lambda data: silenced_head(geometry, **data), event)
        if silent and (run := registry.of(request.session_hash)):
            run.add_change(SilenceHead(name, head))
        try:
            changed = {name: write(silenced(parse({"A": a, "B": b}[name]), head, silent))}
        except (ValueError, TypeError):  # a field that holds no policy stays as it is
            changed = {}
        return [changed.get(field, gr.skip()) for field in fields]

    fields = controls.policies.fields
    at_once = {"queue": False, "show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    controls.stage.look(look, None, None, **at_once)
    page.roles(change_roles, None, controls.policies.threshold, **at_once)
    page.silence(silence, list(fields.values()), list(fields.values()), **at_once)


def roles_of(model: VideoModel, static_heads: Any, threshold: float | None = None) -> HeadRoles:
    """Roles with these static heads and the model's scores.

    Args:
        model: What generates.
        static_heads: The static heads of each layer.
        threshold: Split the scores there instead.

    Raises:
        ValueError: If the model has no such heads, or no scores for a threshold.
    """
    if threshold is not None:
        return at_threshold(model.roles, threshold)
    shape = {"num_layers": model.transformer.layers, "num_heads": model.transformer.heads}
    roles = role_files.from_json(shape | {"static_heads": static_heads})
    return replace(model.roles, static=roles.static) if model.roles else roles


def silenced_head(geometry: Geometry, stream: Any, layer: Any, head: Any, silent: Any) -> tuple[str, Head, bool]:
    """Check a stream, a head of it, and whether to silence it. Raises ValueError when there is no such stream or
    head."""
    if stream not in ("A", "B") or not isinstance(silent, bool):
        raise ValueError(f"stream must be A or B, silent a boolean, not {stream!r:.20} and {silent!r:.20}")
    watch = Watch.of(stream, layer, head, 0, 0, geometry)
    return stream, (watch.focus.layer, watch.focus.head), silent


def _read(read: Callable[[Any], Any], event: gr.EventData) -> Any:
    """Read the data of an event; data that makes no sense is answered by a sentence."""
    try:
        return read(event._data)
    except (ValueError, TypeError, KeyError) as error:
        raise gr.Error(sentence(error), print_exception=False) from None
