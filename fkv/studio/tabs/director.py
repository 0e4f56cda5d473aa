"""The drawer Director of the Live tab: an idea, the scenes that agents agree on, and how they came to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import gradio as gr

from fkv import storyboard
from fkv.analysis.oracle_checks import draws_world
from fkv.debate.director import GRAMMAR, ROLES, Direction, direct
from fkv.debate.endpoint import Endpoint
from fkv.debate.scenes import MOST_IDEA, MOST_SCENES, Brief
from fkv.debate.transcript import Event
from fkv.models.base import VideoModel
from fkv.studio.errors import sentence
from fkv.studio.live import forms
from fkv.studio.live.directing import Progress, Seen, debate, told_of
from fkv.studio.live.disconnect import Caller
from fkv.studio.live.queue import Queue
from fkv.studio.live.sessions import Registry

from .buttons import begin_and_end

IDEA = "a day by the sea"
SCENES = 4
SEEDS = 1 << 16  # so that the grammar proposes something else each time
EXAMPLE = "a red ball over the hills [6c] | a blue star [12c#]"
SCENES_HELP = f"Edit them: `{EXAMPLE}`; durations are in chunks, or in seconds as in [4s]; # is a hard cut."
READY = Progress("idle", "Four agents propose scenes, hear what differs from their own, and agree.")
ACTS = {
    "answer": "says",
    "failure": "could not answer:",
    "drop": "is spared a message:",
    "silence": "keeps silent:",
    "agreement": "agrees:",
    "summary": "sums up:",
    "stop": "stop early:",
    "verdict": "agree on:",
}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class Controls(NamedTuple):
    """Components of the drawer."""

    idea: gr.Textbox
    scenes: gr.Number
    ask: gr.Button
    stop: gr.Button
    bar: gr.HTML
    agreed: gr.Textbox
    fresh: gr.State
    use: gr.Button
    at_once: gr.Checkbox
    note: gr.HTML
    transcript: gr.HTML


def directs(request: gr.Request) -> str:
    """The name under which the registry keeps a visitor's debate, beside their stream."""
    return f"{request.session_hash} directs"


def director_drawer(model: VideoModel, registry: Registry, endpoint: Endpoint | None, story: gr.Textbox) -> None:
    """Build the drawer inside the part of the page that is being built.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        endpoint: The language model; None for the grammar.
        story: The storyboard of the next run.
    """
    c = _controls(endpoint)
    h = Handlers(model, registry, endpoint)
    waiting = registry.limits.waiting + 1
    shown = [c.bar, c.transcript, c.agreed, c.fresh, c.ask, c.stop]
    asked = c.ask.click(h.ask, [c.idea, c.scenes], shown, concurrency_limit=waiting, **QUIET)
    asked.then(h.use_at_once, [c.at_once, c.fresh], [story, c.note], queue=False, **QUIET)
    c.stop.click(h.stop, None, None, queue=False, **QUIET)
    c.use.click(h.use, c.agreed, [story, c.note], queue=False, **QUIET)


def _controls(endpoint: Endpoint | None) -> Controls:
    author = f"the language model {endpoint.model}" if endpoint else GRAMMAR
    with gr.Accordion("Director", open=False, elem_id="fkv-director"):
        with gr.Row():
            idea = gr.Textbox(
                IDEA,
                label="Idea",
                info=f"in a line; the scenes are written by {author}",
                max_lines=1,
                max_length=MOST_IDEA,
                scale=6,
                min_width=320,
            )
            scenes = gr.Number(SCENES, label="Scenes", info=f"1 to {MOST_SCENES}", precision=0, scale=1, min_width=110)
            with gr.Column(scale=1, min_width=190):
                ask = gr.Button("Ask the director", variant="primary")
                stop = gr.Button("Stop the debate", interactive=False)
        bar = gr.HTML(_note(READY.state, READY.text), apply_default_css=False)
        with gr.Row():
            agreed = gr.Textbox("", label="Agreed scenes", info=SCENES_HELP, lines=4, max_lines=10, scale=6)
            with gr.Column(scale=1, min_width=190):
                use = gr.Button("Use this")
                at_once = gr.Checkbox(False, label="Play as it comes", info="use scenes as soon as they are agreed on")
        fresh = gr.State("")  # what the last debate agreed on, "" where it did not
        note = gr.HTML("", apply_default_css=False)
        transcript = gr.HTML(_transcript(()), apply_default_css=False)
    return Controls(
        idea=idea,
        scenes=scenes,
        ask=ask,
        stop=stop,
        bar=bar,
        agreed=agreed,
        fresh=fresh,
        use=use,
        at_once=at_once,
        note=note,
        transcript=transcript,
    )


class Handlers:
    """What the drawer's events do."""

    def __init__(self, model: VideoModel, registry: Registry, endpoint: Endpoint | None) -> None:
        self._model = model
        self._registry = registry
        self._queue = Queue(registry.limits.waiting)
        self._endpoint = endpoint
        self._toy_world = draws_world(model)

    def ask(self, idea: str, scenes: int, request: gr.Request) -> Iterator[list[Any]]:
        """Hold a debate, and update the drawer until it ends."""
        registry = self._registry
        try:
            so_far, facts = told_of(registry.of(request.session_hash), self._model, self._toy_world)
            brief = Brief(idea, scenes, so_far=so_far, facts=facts, toy_world=self._toy_world)
        except ValueError as error:
            yield [_note("error", sentence(error)), gr.skip(), gr.skip(), "", *begin_and_end("error")]
            return
        run = registry.begin(directs(request))
        with closing(debate(self._model, brief, self._direct, run, self._queue, registry.limits, Caller())) as steps:
            for step in steps:
                found = step.direction.scenes.replace(" | ", " |\n") if step.direction else ""
                said = _note(step.state, step.text)
                yield [said, _transcript(step.events), found or gr.skip(), found, *begin_and_end(step.state)]

    def _direct(self, brief: Brief, seen: Seen) -> Direction:
        return direct(brief, self._endpoint, secrets.randbelow(SEEDS), seen)

    def stop(self, request: gr.Request) -> None:
        if run := self._registry.of(directs(request)):
            run.stop()

    def use(self, agreed: str | None, request: gr.Request) -> list[Any]:
        """Play the scenes from the next chunk of the visitor's run on, or put them into the storyboard of the next."""
        run = self._registry.of(request.session_hash)
        try:
            text = forms.text(agreed, "the agreed scenes")
            if not storyboard.has_scenes(text):
                raise ValueError(f"ask the director first, or write scenes with durations, such as {EXAMPLE}")
            cues = storyboard.parse(text, None, None, self._model.chunk_seconds).cues
        except ValueError as error:
            return [gr.skip(), _note("error", sentence(error))]
        if run is None:
            return [text, _note("done", "The scenes are the storyboard of the next run. Press Go live.")]
        begin = run.next_chunk
        run.add_cues(replace(cue, chunk=begin + cue.chunk) for cue in cues)
        play = "1 scene plays" if len(cues) == 1 else f"{len(cues)} scenes play"
        return [gr.skip(), _note("done", f"{play} from chunk {begin + 1} on.")]

    def use_at_once(self, at_once: bool, fresh: str, request: gr.Request) -> list[Any]:
        """The same once a debate has agreed on scenes, where the visitor wants them to play as they come."""
        return self.use(fresh, request) if at_once and fresh else [gr.skip(), gr.skip()]


def _note(state: str, text: str) -> str:
    return f'<p class="fkv-director-bar" role="status" data-state="{state}">{escape(text)}</p>'


def _transcript(events: Sequence[Event]) -> str:
    """All events by stage and round, who kept silent and why included."""
    if not events:
        roles = "".join(f"<li><b>{role}</b> {escape(text)}</li>" for role, text in ROLES.items())
        return f'<div class="fkv-debate"><ol>{roles}</ol></div>'
    named: dict[str, str] = {}
    parts = []
    for when, group in groupby(events, key=lambda event: event.when):
        lines = "".join(_line(event, named) for event in group)
        parts.append(f"<h4>{escape(when)}</h4><ol>{lines}</ol>")
    return f'<div class="fkv-debate" role="log" aria-label="Transcript" tabindex="0">{"".join(parts)}</div>'


def _line(event: Event, named: dict[str, str]) -> str:
    """An event as a line; a proposal that was shown already, by its number in `named`."""
    text = escape(event.text)
    if event.kind in ("answer", "agreement", "summary", "verdict"):
        known = event.text in named
        number = named.setdefault(event.text, f"proposal {len(named) + 1}")
        text = f"<em>{number}</em>" if known else f"<em>{number}:</em> {text}"
    cost = f" <small>{event.tokens:,} tokens</small>" if event.tokens else ""
    return f'<li data-kind="{event.kind}"><b>{escape(event.who)}</b> {ACTS[event.kind]} {text}{cost}</li>'
