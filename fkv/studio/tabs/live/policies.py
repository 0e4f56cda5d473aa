"""The card Policies and parameters: a policy for each stream, and what a stream follows or the next one takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from fkv.analysis.oracle_checks import draws_world
from fkv.models.base import VideoModel
from fkv.policies import POLICIES
from fkv.storyboard import SetPolicy, SetRoles, SetSteps, at_threshold
from fkv.studio.errors import sentence
from fkv.studio.live.sessions import Registry
from fkv.studio.media.assets import page_asset, script
from fkv.studio.media.protocol import page_facts
from fkv.studio.tabs import policy_field, policy_picker

from .events import AT_ONCE, LATEST, add_change, data_of

STEPS_HELP = "fewer are faster; a stream follows with its next chunk"
TIMESTEPS_HELP = "from the model's configuration, such as 1000,757,522; empty: the model's own. Applies to the next run"
FRAMES_HELP = "1 for models that generate frame by frame; 0: as it was loaded; for the next run"
WITHIN = "Math.min(1, Math.max(0, share))"  # a slider refuses numbers typed beyond its ends


class Policies:
    """The card's components and handlers.

    Args:
        model: What generates.
        registry: The runs of all visitors.
    """

    def __init__(self, model: VideoModel, registry: Registry) -> None:
        self._model = model
        self._registry = registry
        policies = dict(zip("AB", model.policies, strict=True))
        with gr.Accordion("Policies and parameters", open=False, elem_id="fkv-advanced"):
            with gr.Row():
                self.fields = {name: _field(name, policy) for name, policy in policies.items()}
                with gr.Column():
                    self._build_parameters()
            with gr.Row():
                self._pickers = {name: self._picker(name, policy) for name, policy in policies.items()}
        self._wire()

    def _build_parameters(self) -> None:
        model = self._model
        split = model.profile_threshold
        self.threshold = gr.Slider(
            0,
            1,
            split or 0,
            step=0.01,
            label="Threshold of static heads",
            info=policy_field.split_info(model, split),
            interactive=split is not None,
        )
        most = len(model.schedule.sigmas)
        self.steps = gr.Slider(
            1,
            max(most, 2),  # a slider needs two values
            most,
            step=1,
            label="Denoising steps of a chunk",
            info=STEPS_HELP,
            interactive=most > 1,
        )
        real = not draws_world(model)
        self.timesteps = gr.Textbox("", label="Denoising timesteps", info=TIMESTEPS_HELP, max_lines=1, visible=real)
        self.frames = gr.Number(0, label="Latent frames of a chunk", info=FRAMES_HELP, precision=0, visible=real)
        self.recache = gr.Checkbox(
            False, label="Re-cache when the prompt changes", info=policy_field.recache_info(*model.policies)
        )

    def _picker(self, name: str, policy: str) -> gr.HTML:
        with gr.Column(min_width=320):
            return gr.HTML(
                policy_picker.picked(self._model, name, policy),
                html_template=page_asset("picker.html"),
                js_on_load=script("picker", "pick"),
                catalogue=policy_picker.catalogue(),
                facts=page_facts(),
                apply_default_css=False,
            )

    def _wire(self) -> None:
        both = list(self.fields.values())
        self.steps.input(self._change_steps, self.steps, None, **LATEST)
        if self.threshold.interactive:
            clamped = f"(share) => {WITHIN}"
            self.threshold.input(self._change_threshold, self.threshold, None, js=clamped, **LATEST)
            self.threshold.change(self._say_split, self.threshold, self.threshold, js=clamped, **LATEST)
        for name, field in self.fields.items():
            picker = self._pickers[name]
            field.input(self._change_policy_of(name), field, None, **AT_ONCE)
            field.change(lambda a, b: gr.Checkbox(info=policy_field.recache_info(a, b)), both, self.recache, **AT_ONCE)
            field.change(partial(policy_picker.picked, self._model, name), field, picker, **LATEST)
            picker.pick(self._pick_policy_of(name), field, [field, picker], **LATEST)

    def _change_steps(self, steps: float, request: gr.Request) -> None:
        add_change(self._registry, SetSteps(int(steps)), request)

    def _change_threshold(self, value: float, request: gr.Request) -> None:
        add_change(self._registry, SetRoles(at_threshold(self._model.roles, value)), request)

    def _say_split(self, value: float) -> gr.Slider:
        """Say how the threshold splits the heads, whoever has moved it: the visitor, a link, an undo, another tab."""
        return gr.Slider(info=policy_field.split_info(self._model, value))

    def _change_policy_of(self, stream: str) -> Callable[..., None]:
        """A handler for the policy field of a stream."""

        def change_policy(text: str | None, request: gr.Request) -> None:
            add_change(self._registry, SetPolicy(stream, str(text or "").strip()), request)

        return change_policy

    def say_policy(self, a: str | None, b: str | None, event: gr.EventData, request: gr.Request) -> list[str | None]:
        """Change the policy that was typed on the stage, as in `A = full`. Returns what the fields say then."""
        said = {"A": a, "B": b}
        data = data_of(event)
        stream, policy = str(data.get("stream")), str(data.get("policy", ""))
        if stream in said:
            said[stream] = policy
            self._change_policy_of(stream)(policy, request)
        return list(said.values())

    def _pick_policy_of(self, stream: str) -> Callable[..., list[Any]]:
        """A handler for the policy picker of a stream, which writes into the policy field."""
        change_policy = self._change_policy_of(stream)
        picked = partial(policy_picker.picked, self._model, stream)

        def pick_policy(text: str | None, event: gr.EventData, request: gr.Request) -> list[Any]:
            try:
                policy = policy_picker.choose(text, event._data["name"], event._data["values"])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                return [gr.skip(), picked(text) | {"problem": sentence(error)}]
            change_policy(policy, request)
            return [policy, picked(policy)]

        return pick_policy


def _field(name: str, policy: str) -> gr.Dropdown:
    with gr.Column():
        return gr.Dropdown(list(POLICIES), value=policy, label=f"Policy of {name}", allow_custom_value=True)
