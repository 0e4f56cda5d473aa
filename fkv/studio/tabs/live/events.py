"""How the tab's events are sent, and how a change reaches the visitor's run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fkv.storyboard import Change
from fkv.studio.live.sessions import Registry

PRIVATE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
AT_ONCE = PRIVATE | {"queue": False}
LATEST = AT_ONCE | {"trigger_mode": "always_last"}


def data_of(event: gr.EventData) -> dict[str, Any]:
    """What the page tells with an event; nothing where a program calls it without."""
    return event._data if isinstance(event._data, dict) else {}


def add_change(registry: Registry, change: Change, request: gr.Request) -> None:
    """Change the visitor's run with its next chunk, where there is one."""
    if run := registry.of(request.session_hash):
        run.add_change(change)
