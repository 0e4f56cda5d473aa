"""The Explore tab: futures of one stream, found by a search or chosen by hand. The work is `live.exploring`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import gradio as gr

from fkv.analysis.oracle_checks import draws_world
from fkv.models.base import VideoModel
from fkv.policies import POLICIES
from fkv.search.head import Head
from fkv.search.rewards import NAMES
from fkv.studio.errors import sentence
from fkv.studio.live.explore_plan import BY_HAND, CHOICES, MOVES, ExplorePlan
from fkv.studio.live.exploring import FUTURES, explore
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset, script

from . import live
from .buttons import begin_and_end
from .live.events import data_of

CHUNKS = 6
WIDTH = 6
AHEAD = 2
PASSES = 200
STRATEGY = "beam"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
AT_ONCE = QUIET | {"queue": False}
READY = "Press Explore for a search, or Choose by hand to pick among futures yourself."
WORDS_OF_MOVES = {
    "noise": "noise",
    "wording": "wording of prompts",
    "recache": "re-cache at a new prompt",
    "when": "when a change comes",
    "policy": "policy",
    "steps": "all steps or half",
}
OPENS = "This model's noise decides the first chunk alone; a new prompt in the storyboard gives later ones a choice."
LEAVE = "() => document.dispatchEvent(new CustomEvent('fkv-go-on'))"  # heard by assets/studio/explore/tab.js


class Controls(NamedTuple):
    """Components of the tab, in the order of `ExplorePlan.from_form`'s fields, then those that events change."""

    prompt: gr.Textbox
    seed: gr.Number
    policy: gr.Dropdown
    strategy: gr.Dropdown
    chunks: gr.Number
    width: gr.Number
    lookahead: gr.Number
    passes: gr.Number
    rewards: gr.Textbox
    moves: gr.CheckboxGroup
    story: gr.Textbox
    go: gr.Button
    by_hand: gr.Button
    stop: gr.Button
    tree: gr.HTML

    @property
    def form(self) -> dict[str, gr.components.Component]:
        """The fields of the form by the names that `ExplorePlan.from_form` gives them."""
        return dict(list(self._asdict().items())[: self._fields.index("go")])

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a run changes, in the order in which `Handlers.start` yields it."""
        return [self.tree, self.go, self.by_hand, self.stop]


def explores(request: gr.Request) -> str:
    """The name under which the registry keeps a visitor's tree, beside their stream."""
    return f"{request.session_hash} explores"


def explore_tab(model: VideoModel, registry: Registry, live_controls: live.Controls) -> None:
    """Build the tab inside the page that is being built.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        live_controls: The Live tab, which goes on from a future.
    """
    c = _controls(model)
    h = Handlers(model, registry, c, live_controls)
    queued = QUIET | {"concurrency_limit": registry.limits.waiting + 1}
    form: set[gr.blocks.Block] = set(c.form.values())
    c.go.click(h.start, form, c.shown, **queued)
    c.by_hand.click(h.start_by_hand, form, c.shown, **queued)
    c.stop.click(h.stop, None, None, **AT_ONCE)
    c.tree.choose(h.choose, None, None, **AT_ONCE)
    handed = c.tree.live(h.go_on, live_controls.next_run.length, live_controls.form, **AT_ONCE)
    handed.then(None, None, None, js=LEAVE, api_visibility="private")


def _controls(model: VideoModel) -> Controls:
    with gr.Column(elem_id="fkv-explore-form"):
        with gr.Row():
            example = model.examples[0] if model.examples else ""
            prompt = gr.Textbox(example, label="Prompt", lines=1, max_lines=1, scale=6, min_width=320)
            seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=90)
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    go = gr.Button("Explore", variant="primary", min_width=140)
                    by_hand = gr.Button("Choose by hand", min_width=140)
                stop = gr.Button("Stop exploring", interactive=False)
        with gr.Row():
            strategy = gr.Dropdown(
                [name for name in CHOICES[1:] if name != "saffron" or Head.beside(model)],
                value=STRATEGY,
                label="Strategy",
                info="or with parameters: ets:cost=nodes+distance=0.1",
                allow_custom_value=True,
                min_width=200,
            )
            rewards = gr.Textbox(
                "continuity",
                label="Rewards, joined by +",
                info=", ".join(NAMES[:-1]),
                max_lines=1,
                scale=2,
                min_width=260,
            )
            moves = gr.CheckboxGroup(
                [(WORDS_OF_MOVES[move], move) for move in MOVES],
                value=["noise", "recache"],
                label="Futures differ in",
                info=OPENS if draws_world(model) and not model.transformer.events else None,
                scale=2,
                min_width=260,
            )
        with gr.Accordion("Size, policy and storyboard", open=False):
            with gr.Row():
                chunks = gr.Number(CHUNKS, label="Chunks", precision=0, min_width=100)
                width = gr.Number(WIDTH, label="Futures side by side", precision=0, min_width=140)
                lookahead = gr.Number(
                    AHEAD, label="Look ahead", info="chunks before one is decided", precision=0, min_width=140
                )
                passes = gr.Number(PASSES, label="Passes at most", precision=0, min_width=140)
                policy = gr.Dropdown(
                    list(POLICIES), value=model.policies[0], label="Policy", allow_custom_value=True, min_width=180
                )
            story = gr.Textbox(
                "",
                label="What changes at which chunk",
                info="in all futures, as on the Live tab",
                placeholder="4: a blue star drifting over the sea at night",
                lines=2,
                max_lines=6,
            )
    tree = gr.HTML(
        {"state": "idle", "text": READY, "nodes": [], "options": []},
        html_template=page_asset("explore.html"),
        js_on_load=script("explore/tab", "choose", "live"),
        apply_default_css=False,
        elem_id="fkv-explore",
    )
    return Controls(
        prompt=prompt,
        seed=seed,
        policy=policy,
        strategy=strategy,
        chunks=chunks,
        width=width,
        lookahead=lookahead,
        passes=passes,
        rewards=rewards,
        moves=moves,
        story=story,
        go=go,
        by_hand=by_hand,
        stop=stop,
        tree=tree,
    )


class Handlers:
    """What the tab's events do."""

    def __init__(self, model: VideoModel, registry: Registry, controls: Controls, live_controls: live.Controls) -> None:
        self._model = model
        self._registry = registry
        self._controls = controls
        self._live = live_controls

    def start(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Search, and show the tree as it grows."""
        yield from self._start({name: form[field] for name, field in self._controls.form.items()}, request)

    def start_by_hand(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Show futures to choose from until there are as many chunks or passes as the form says."""
        fields = {name: form[field] for name, field in self._controls.form.items()}
        yield from self._start(fields | {"strategy": BY_HAND}, request)

    def _start(self, fields: dict[str, Any], request: gr.Request) -> Iterator[list[Any]]:
        registry = self._registry
        try:
            plan = ExplorePlan.from_form(self._model, **fields)
        except ValueError as error:
            yield [{"state": "error", "text": sentence(error)}, *begin_and_end("error", 2)]
            return
        run = registry.begin(explores(request))
        with closing(explore(self._model, plan, run, registry.queue, registry.limits)) as manifests:
            for manifest in manifests:
                yield [manifest, *begin_and_end(manifest["state"], 2)]

    def stop(self, request: gr.Request) -> None:
        if run := self._registry.of(explores(request)):
            run.stop()

    def choose(self, event: gr.EventData, request: gr.Request) -> None:
        """Go on with one of the futures that are shown; anything but its number is ignored."""
        run = self._registry.of(explores(request))
        number = data_of(event).get("number")
        if run and isinstance(number, int) and 0 <= number < FUTURES:
            run.choose(number)

    def go_on(self, length: float | None, event: gr.EventData) -> dict[Any, Any]:
        """Write a future into the form of the Live tab, which checks it when the run begins.

        Args:
            length: Chunks that the Live tab runs, 0 for endless; at least those of the future.
            event: Has the future.
        """
        c = self._live
        data = data_of(event)
        noises = str(data.get("noises", ""))
        chunks = len(noises.split(","))
        split = self._model.profile_threshold  # with which futures are generated
        return {
            c.prompt.text: str(data.get("prompt", "")),
            c.next_run.seed: data.get("seed"),
            c.next_run.view: "A",
            c.policies.fields["A"]: str(data.get("policy", "")),
            c.storyboard.changes: str(data.get("story", "")),
            c.policies.steps: len(self._model.schedule.sigmas),
            c.storyboard.branch: "",
            c.policies.timesteps: "",
            c.policies.frames: 0,
            c.storyboard.path: noises,
            c.next_run.length: chunks if 0 < (length or 0) < chunks else gr.skip(),
            c.policies.threshold: gr.skip() if split is None else split,
        }
