"""The Live tab: prompt, controls, stage. What a run does is `live`; what the picture does is the script in `assets/studio`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from ..models.base import VideoModel
from ..policies import POLICIES
from . import changes
from .files import asset
from .live import Plan, live, sentence
from .sessions import Registry

SCRIPTS = ("player.js", "charts.js", "xray.js", "main.js")
HYBRID, REFERENCE = "forcing-kv", "full"
"""The policies of streams A and B until the visitor chooses others."""
CHUNKS = 40
WAITING = 32
"""Visitors who may stand in line."""


def live_tab(page: gr.Blocks, model: VideoModel, registry: Registry) -> None:
    """Build the tab inside the page that is being built."""
    with gr.Column(elem_id="fkv-controls"):
        with gr.Row(elem_id="fkv-prompt"):
            prompt = gr.Textbox(model.examples[0] if model.examples else "", label="Prompt", lines=1, max_lines=1, scale=6, min_width=320)
            go = gr.Button("Go live", variant="primary", elem_id="fkv-go", scale=1, min_width=110)
            change = gr.Button("Change prompt", elem_id="fkv-change", interactive=False, scale=1, min_width=140)
            pause = gr.Button("Pause", elem_id="fkv-pause", interactive=False, scale=1, min_width=100)
            stop = gr.Button("Stop", elem_id="fkv-stop", interactive=False, scale=1, min_width=90)
        with gr.Row(elem_id="fkv-choices"):
            with gr.Column(scale=5, min_width=320):
                if model.examples:
                    gr.Examples([[text] for text in model.examples], prompt, elem_id="fkv-examples", api_visibility="private")
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    view = gr.Radio(views(HYBRID, REFERENCE), value="AB", label="Cache", scale=3, min_width=300)
                    length = gr.Number(CHUNKS, label="Chunks (0: endless)", precision=0, scale=1, min_width=165)
                    seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=100)
                hint = gr.HTML('<p class="fkv-hint"></p>', apply_default_css=False, elem_id="fkv-hint")
    stage = gr.HTML(
        {}, html_template=asset("stage.html"), js_on_load="\n".join(map(asset, SCRIPTS)), apply_default_css=False, elem_id="fkv-stage"
    )
    with gr.Accordion("Advanced: policies of A and B", open=False, elem_id="fkv-advanced"):
        with gr.Row():
            first = gr.Dropdown(list(POLICIES), value=HYBRID, label="Policy of A", allow_custom_value=True)
            second = gr.Dropdown(list(POLICIES), value=REFERENCE, label="Policy of B", allow_custom_value=True)
            recache = gr.Checkbox(False, label="Re-cache when the prompt changes", info="recompute the held frames under the new prompt")
        gr.Markdown(policy_table())

    fields = [prompt, seed, length, view, first, second]
    shown = [stage, go, change, pause, stop]

    def start(
        prompt: str, seed: float | None, length: float | None, view: str, a: str, b: str, recache: bool, request: gr.Request
    ) -> Iterator[list[Any]]:
        try:
            plan = Plan.of(prompt, seed, length, view, a, b)
        except ValueError as error:
            yield [{"state": "error", "text": sentence(error)}, *_buttons("error")]
            return
        with closing(live(model, plan, registry.begin(request.session_hash), registry.line, registry.limits)) as manifests:
            for manifest in manifests:
                yield [manifest, *_buttons(manifest["state"])]

    def enter(
        prompt: str, seed: float | None, length: float | None, view: str, a: str, b: str, recache: bool, request: gr.Request
    ) -> Iterator[list[Any]]:
        if registry.of(request.session_hash):
            change_prompt(prompt, recache, request)
            yield [gr.skip()] * len(shown)
        else:
            yield from start(prompt, seed, length, view, a, b, recache, request)

    def change_prompt(prompt: str, recache: bool, request: gr.Request) -> None:
        if run := registry.of(request.session_hash):
            run.ask(changes.prompt(prompt, recache))

    def toggle_pause(request: gr.Request) -> None:
        if run := registry.of(request.session_hash):
            run.pause(not run.paused)

    def stop_run(request: gr.Request) -> None:
        if run := registry.of(request.session_hash):
            run.stop()

    quiet = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    queued, at_once = quiet | {"concurrency_id": "stream", "concurrency_limit": WAITING}, quiet | {"queue": False}
    go.click(start, [*fields, recache], shown, **queued)
    prompt.submit(enter, [*fields, recache], shown, **queued)
    change.click(change_prompt, [prompt, recache], None, **at_once)
    pause.click(toggle_pause, None, None, **at_once)
    stop.click(stop_run, None, None, **at_once)
    prompt.change(lambda text: _hints(model, text), prompt, hint, **at_once | {"trigger_mode": "always_last"})
    for policy in (first, second):
        policy.change(lambda a, b: gr.Radio(choices=views(a, b)), [first, second], view, **at_once)
    page.load(_restore, None, fields, **at_once | {"trigger_mode": "once"})


def views(a: str, b: str) -> list[tuple[str, str]]:
    """Choices of what to stream: A alone, B alone, or both."""
    names = [{HYBRID: "Forcing-KV", REFERENCE: "Full"}.get(text.strip(), text.partition(":")[0].strip()) for text in (a, b)]
    first, second = names if names[0] != names[1] else (f"{names[0]} (A)", f"{names[1]} (B)")
    return [(first, "A"), (second, "B"), ("Side by side", "AB")]


def policy_table() -> str:
    """Every policy and its parameters with their defaults, as Markdown."""
    rows = ["Pick a policy, or write `name:parameter=value,parameter=value`.\n", "| policy | | parameters and their defaults |", "|-|-|-|"]
    for policy in POLICIES.values():
        fields = ", ".join(f"`{field.name}={field.default}`" for field in dataclasses.fields(policy)) or "none"
        rows.append(f"| `{policy.name}` | {policy.help} | {fields} |")
    return "\n".join(rows)


def _buttons(state: str) -> list[Any]:
    """Go live, Change prompt, Pause, Stop as they are in a state."""
    running, streams = state in ("queued", "live", "paused"), state in ("live", "paused")
    return [
        gr.Button("Start anew" if running else "Go live", variant="secondary" if running else "primary"),
        gr.Button(interactive=streams, variant="primary" if running else "secondary"),
        gr.Button("Resume" if state == "paused" else "Pause", interactive=streams),
        gr.Button(interactive=running),
    ]


def _hints(model: VideoModel, prompt: str) -> str:
    return f'<p class="fkv-hint" role="status">{escape(" ".join(model.hints(prompt)))}</p>'


def _restore(request: gr.Request) -> list[Any]:
    """The form as the address says, so that a link brings a run back."""
    ask = request.query_params.get
    view = ask("view") if ask("view") in ("A", "B", "AB") else None
    values = ask("prompt"), _number(ask("seed")), _number(ask("length")), view, ask("a"), ask("b")
    return [gr.skip() if value is None else value for value in values]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) < 12 else None
