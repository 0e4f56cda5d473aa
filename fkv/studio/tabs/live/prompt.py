"""The first card: the prompt, the buttons of a run, and the hint below them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from fkv.models.base import VideoModel
from fkv.storyboard import parse as parse_story
from fkv.studio.live.plan import Branch
from fkv.studio.live.sessions import Registry

from .events import LATEST

TELL_PAGE = "(text) => { document.dispatchEvent(new CustomEvent('fkv-prompt', { detail: text })); }"
LAST_WORD = re.compile(r"(?<!\w)\w+$")  # the word that is being typed; tried at word starts only, so in linear time
NEXT_RUN = "Stream, chunks and seed apply to the next run. Press Start over."


class Prompt:
    """The card's components, and what is said below the prompt.

    Args:
        model: What generates.
        registry: The runs of all visitors.
    """

    def __init__(self, model: VideoModel, registry: Registry) -> None:
        self._model = model
        self._registry = registry
        with gr.Row(elem_id="fkv-prompt"):
            example = model.examples[0] if model.examples else ""
            self.text = gr.Textbox(example, label="Prompt", lines=1, max_lines=1, scale=6, min_width=320)
            self.go = gr.Button("Go live", variant="primary", elem_id="fkv-go", scale=1, min_width=110)
            self.change = gr.Button("Change prompt", elem_id="fkv-change", interactive=False, scale=1, min_width=140)
            self.flush = gr.Button("Flush", elem_id="fkv-flush", interactive=False, scale=1, min_width=80)
            self.cut = gr.Button("Cut", elem_id="fkv-cut", interactive=False, scale=1, min_width=70)
            self.pause = gr.Button("Pause", elem_id="fkv-pause", interactive=False, scale=1, min_width=100)
            self.step = gr.Button("Step", elem_id="fkv-step", interactive=False, scale=1, min_width=80)
            self.stop = gr.Button("Stop", elem_id="fkv-stop", interactive=False, scale=1, min_width=90)
            self.hint = gr.HTML(hint([]), apply_default_css=False, elem_id="fkv-hint")
        self.text.change(self._hint_while_typing, self.text, self.hint, **LATEST)
        self.text.change(None, self.text, None, js=TELL_PAGE, api_visibility="private")

    @property
    def buttons(self) -> list[gr.components.Component]:
        """The buttons in the order of `buttons_in`."""
        return [self.go, self.change, self.flush, self.cut, self.pause, self.step, self.stop]

    def hint_all(self, text: str | None, story: str | None, branch: str | None) -> str:
        """Say what is not read of the prompt, the storyboard's prompts and that of a branch."""
        prompts = [text or ""]
        with suppress(ValueError):  # said when the run starts
            prompts += parse_story(story or "", self._model.roles, None, self._model.chunk_seconds).prompts
        with suppress(ValueError):
            future = Branch.read(branch or "")
            prompts += [future.prompt] if future else []
        return hint(self._model.hints_of(prompts))

    def _hint_while_typing(self, text: str | None) -> str:
        return hint(self._model.hints(LAST_WORD.sub("", text or "")))

    def hint_for_next_run(self, text: str | None, request: gr.Request) -> Any:
        """Say that a setting applies to the next run, while one goes on."""
        running = self._registry.of(request.session_hash)
        return hint([*self._model.hints(text or ""), NEXT_RUN]) if running else gr.skip()


def buttons_in(state: str) -> list[Any]:
    """Go live, Change prompt, Flush, Cut, Pause, Step and Stop as they are in a state."""
    running = state in ("queued", "live", "paused")
    streams = state in ("live", "paused")
    return [
        gr.Button("Start over" if running else "Go live", variant="secondary" if running else "primary"),
        gr.Button(interactive=running, variant="primary" if running else "secondary"),
        gr.Button(interactive=streams),
        gr.Button(interactive=streams),
        gr.Button("Resume" if state == "paused" else "Pause", interactive=streams),
        gr.Button(interactive=state == "paused"),
        gr.Button(interactive=running),
    ]


def hint(sentences: Sequence[str]) -> str:
    return f'<p class="fkv-hint" role="status">{escape(" ".join(sentences))}</p>'
