"""The tab as a whole: the order of its cards, and the events that concern several of them."""

from __future__ import annotations

import gradio as gr

from fkv.models.base import VideoModel
from fkv.studio.live.sessions import Registry
from fkv.studio.tabs import about, policy_field

from .controls import Controls
from .events import AT_ONCE, LATEST, PRIVATE
from .link import Links
from .next_run import NextRun
from .policies import Policies
from .prompt import Prompt
from .recording import RecordingCard
from .runs import Runs
from .stage import recorded_run, stage
from .storyboard import Storyboard


def live_tab(page: gr.Blocks, model: VideoModel, registry: Registry) -> Controls:
    """Build the tab inside the page that is being built."""
    recorded = recorded_run(model, registry)
    with gr.Column(elem_id="fkv-controls"):
        prompt = Prompt(model, registry)
        next_run = NextRun(model, prompt.text)
    controls = Controls(
        prompt,
        next_run,
        stage(model, recorded),
        Policies(model, registry),
        Storyboard(),
        gr.Column(elem_id="fkv-drawers"),  # of other files, such as the director's
        RecordingCard(model, registry),
    )
    gr.HTML(about.html(), apply_default_css=False, elem_id="fkv-about")
    _wire(controls, Runs(model, registry, controls), registry)
    shown = [controls.stage, controls.storyboard.card, *controls.form]
    page.load(Links(model, recorded).restore, None, shown, **AT_ONCE | {"trigger_mode": "once"})
    return controls


def _wire(controls: Controls, runs: Runs, registry: Registry) -> None:
    prompt, next_run, stage, policies, storyboard, *_ = controls
    at_most = registry.limits.waiting + 8  # runs that generate or wait, and some to be told that the queue is full
    queued = PRIVATE | {"concurrency_id": "stream", "concurrency_limit": at_most}
    form: set[gr.blocks.Block] = {*controls.form, policies.recache}
    prompt.go.click(runs.start, form, controls.shown, **queued)
    prompt.text.submit(runs.enter, form, controls.shown, **queued)
    prompt.change.click(runs.change_prompt, [prompt.text, policies.recache], None, **AT_ONCE)
    stage.branch(runs.branch, form, [*controls.shown, *controls.form], **queued)
    undone = [prompt.hint, prompt.text, *policies.fields.values(), policies.threshold, policies.steps]
    stage.policy(policies.say_policy, list(policies.fields.values()), list(policies.fields.values()), **AT_ONCE)
    stage.undo(runs.undo, None, undone, **AT_ONCE)
    for button, press in (
        (prompt.flush, runs.flush),
        (prompt.cut, runs.cut),
        (prompt.pause, runs.toggle_pause),
        (prompt.step, runs.step),
        (prompt.stop, runs.stop),
    ):
        button.click(press, None, None, **AT_ONCE)
    texts = [prompt.text, storyboard.changes, storyboard.branch]
    gr.on([*(text.blur for text in texts), prompt.go.click], prompt.hint_all, texts, prompt.hint, **LATEST)
    settings = [next_run.view.input, next_run.length.input, next_run.seed.input, next_run.die.click]
    gr.on(settings, prompt.hint_for_next_run, prompt.text, prompt.hint, **LATEST)
    both = list(policies.fields.values())
    for field in both:
        field.change(lambda a, b: gr.Radio(choices=policy_field.views(a, b)), both, next_run.view, **AT_ONCE)
