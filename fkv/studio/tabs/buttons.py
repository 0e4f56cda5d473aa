"""The buttons of a card that begins work and ends it."""

from __future__ import annotations

import gradio as gr


def begin_and_end(state: str, beginnings: int = 1) -> list[gr.Button]:
    """The buttons that begin, and the one that ends, as they are in a state of the work."""
    running = state in ("queued", "running", "choose")
    return [*(gr.Button(interactive=not running) for _ in range(beginnings)), gr.Button(interactive=running)]
