"""What a visitor's run does: its beginning to its end, its control, and changes on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from fkv.models.base import VideoModel
from fkv.storyboard import Cut, Flush, SetPrompt
from fkv.studio.errors import sentence
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan, Sampling
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.live.undo import History, Settings
from fkv.studio.live.zerogpu import generating

from .branch import Future, branched
from .controls import Controls
from .events import add_change
from .link import number, with_steps
from .prompt import buttons_in, hint

NOTHING_TO_UNDO = "There is no change of this run to take back; frames that were flushed or cut off do not come back."
UNREAD = "This run cannot be read, so it cannot be branched. Press Go live, then Branch from here."


class Runs:
    """Handlers of a run's events. Gradio gives `request` to every handler that has it as a parameter.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        controls: The cards, by which a form is read.
    """

    def __init__(self, model: VideoModel, registry: Registry, controls: Controls) -> None:
        self._model = model
        self._registry = registry
        self._controls = controls
        self._generating = generating(model, registry.limits.together)

    def running(self, request: gr.Request) -> Run | None:
        """The visitor's run, while it generates or waits for its turn."""
        return self._registry.of(request.session_hash)

    def start(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Begin a run, and update the stage and the buttons until it ends."""
        registry = self._registry
        try:
            plan = self._plan(form)
        except ValueError as error:
            yield self._refused(sentence(error), request)
            return
        run = registry.begin(request.session_hash)
        run.history = History(Settings.of(plan, self._model))
        try:
            with closing(live(self._model, plan, run, registry.queue, registry.limits, self._generating)) as manifests:
                before = None
                for manifest in manifests:
                    state = manifest["state"]
                    replaced = registry.replaced(request.session_hash, run)
                    buttons = self._same_buttons if replaced or state == before else buttons_in(state)
                    begins = before is None and state != "error"
                    yield [manifest, *buttons, self._controls.recording.forget() if begins else gr.skip()]
                    before = state
        finally:
            if run.ended in ("left", "idle"):  # nobody is there to look back at it
                registry.forget(run)

    @property
    def _same_buttons(self) -> list[Any]:
        return [gr.skip()] * len(self._controls.prompt.buttons)

    def _refused(self, text: str, request: gr.Request) -> list[Any]:
        """What the page shows where no run begins: one that goes on keeps its buttons, and the last its recording."""
        buttons = self._same_buttons if self.running(request) else buttons_in("error")
        return [{"state": "error", "text": text}, *buttons, gr.skip()]

    def enter(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Enter in the prompt changes the prompt of a run, or begins one."""
        controls = self._controls
        if self.running(request):
            self.change_prompt(form[controls.prompt.text], form[controls.policies.recache], request)
            yield [gr.skip()] * len(controls.shown)
        else:
            yield from self.start(form, request)

    def branch(self, form: dict[Any, Any], event: gr.EventData, request: gr.Request) -> Iterator[list[Any]]:
        """Begin a run that repeats the run shown up to a chunk, and goes on from there as it did and as the form says.

        Yields:
            What `start` yields, and the form of the new run once it has begun.
        """
        controls = self._controls
        unchanged = [gr.skip()] * len(controls.form)
        try:
            past = dict(parse_qsl(str(event._data["query"]).lstrip("?")))
            values = branched(
                past,
                int(event._data["chunk"]),
                str(event._data["prompt"]),
                Future(
                    form[controls.prompt.text], form[controls.next_run.seed], str(form[controls.policies.fields["B"]])
                ),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = sentence(error) if type(error) is ValueError else UNREAD
            yield [*self._refused(text, request), *unchanged]
            return
        *others, story, branch = values
        rest = [past.get("schedule", ""), number(past.get("frames")) or 0, past.get("path", "")]
        new = dict(zip(controls.form, [*others, *with_steps(self._model, story), branch, *rest], strict=True))
        new[controls.next_run.length] = form[controls.next_run.length]
        if new[controls.policies.threshold] is None:
            new[controls.policies.threshold] = self._model.profile_threshold or form[controls.policies.threshold]
        values = list(new.values())
        for shown in self.start(form | new, request):
            refused = values is not unchanged and shown[0]["state"] == "error"
            yield [*shown, *(unchanged if refused else values)]
            values = unchanged

    def _plan(self, form: dict[Any, Any]) -> Plan:
        controls = self._controls
        threshold = form[controls.policies.threshold]
        released = self._model.profile_threshold
        steps = int(form[controls.policies.steps])
        sampling = Sampling.read(form[controls.policies.timesteps], form[controls.policies.frames])
        return Plan.from_form(
            prompt=form[controls.prompt.text],
            seed=form[controls.next_run.seed],
            length=form[controls.next_run.length],
            view=form[controls.next_run.view],
            a=form[controls.policies.fields["A"]],
            b=form[controls.policies.fields["B"]],
            threshold=None if released is None or threshold == released else threshold,
            story=form[controls.storyboard.changes],
            branch=form[controls.storyboard.branch],
            steps=None if steps == len(self._model.schedule.sigmas) else steps,
            roles=self._model.roles,
            chunk_seconds=sampling.of(self._model).chunk_seconds,
            sampling=sampling,
            path=form[controls.storyboard.path],
        )

    def toggle_pause(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.toggle()

    def step(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.step()

    def stop(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.stop()

    def change_prompt(self, prompt: str, recache: bool, request: gr.Request) -> None:
        add_change(self._registry, SetPrompt(prompt, recache), request)

    def flush(self, request: gr.Request) -> None:
        add_change(self._registry, Flush(), request)

    def cut(self, request: gr.Request) -> None:
        add_change(self._registry, Cut(), request)

    def undo(self, request: gr.Request) -> list[Any]:
        """Take the last change of the run back, and show what holds then in its field; a draft in others stays."""
        run = self.running(request)
        before = _fields_of(run.history.now) if run and run.history else []
        if run is None or run.history is None or not run.undo():
            return [hint([NOTHING_TO_UNDO]), *[gr.skip()] * 5]
        now = _fields_of(run.history.now)
        changed = [value not in (None, old) for value, old in zip(now, before, strict=True)]
        return [hint([]), *(value if is_new else gr.skip() for value, is_new in zip(now, changed, strict=True))]


def _fields_of(now: Settings) -> list[Any]:
    """The values of the fields that an undo may put back; None for what they cannot show."""
    threshold = now.roles.threshold if now.roles else None
    return [now.prompt, now.policies.get("A"), now.policies.get("B"), threshold, now.steps]
