"""The Live tab: controls, handlers, wiring. What a run does is `studio.live`; what the stage draws is
`assets/studio`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from html import escape
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import gradio as gr

from fkv.analysis.evaluate import draws_world
from fkv.models.base import VideoModel
from fkv.policies import POLICIES
from fkv.storyboard import Change, Cut, Flush, SetPolicy, SetPrompt, SetRoles, SetSteps, at_threshold
from fkv.storyboard import parse as parse_story
from fkv.studio.errors import sentence
from fkv.studio.live import sample_run
from fkv.studio.live.attention_probe import first_focus
from fkv.studio.live.live import live
from fkv.studio.live.plan import BRANCH_EXAMPLE, VIEWS, Branch, Plan, Sampling
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.live.undo import History, Settings
from fkv.studio.live.zerogpu import generating
from fkv.studio.media.artifacts import Artifacts
from fkv.studio.media.assets import page_asset, script
from fkv.studio.media.mp4 import Encoding, Recording
from fkv.studio.media.protocol import page_facts
from fkv.world.captions import COLOURS, MOTIONS, SCENES, SHAPES, SYNONYMS, TIMES

from . import about, policy_field, policy_picker

CHUNKS = 40
EXAMPLES = 3
GROUPS = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "place": SCENES, "time": TIMES}  # of words to pick
ROLL = "() => Math.floor(Math.random() * 1e6)"  # a seed
TELL_PAGE = "(text) => { document.dispatchEvent(new CustomEvent('fkv-prompt', { detail: text })); }"
OPENING_STEPS = re.compile(r"1: steps = ([1-9])(?:\n|$)")  # the field of the steps, as a link holds it
LAST_WORD = re.compile(r"\w+$")  # the word that is being typed
WITHIN = "Math.min(1, Math.max(0, share))"  # a slider refuses numbers typed beyond its ends
NEXT_RUN = "Stream, chunks and seed apply to the next run. Press Start over."
LINKED = "This link's settings are loaded{}. Press Go live to generate; a sample recording plays until then."
PLANNED = ", and the Storyboard has what changes on the way"
OTHER_MODEL = "This link was made with the model {}; this studio runs {}, so frames will differ."
NO_RECORDING = "Nothing recorded yet"
STORY = (
    "6: a cyan star drifting over the sea at night\n"
    "12: A = sliding-window\n"
    "18: re-cache = a yellow box swinging over the mountains"
)
STORY_HELP = (
    "One change per line, each with the number of its chunk: `6: another prompt`, `6: re-cache = another prompt`, "
    "`6: A = policy`, `6: cut = another prompt`, `6: threshold = 0.7`, `6: heads = 3.2 dynamic`, "
    "`6: steps = 2`, `6: flush`, `6: cut`. Or scenes with durations in seconds or chunks: "
    "`a red ball [10s] | the same ball at night [12#]`; `#` marks a hard cut. "
    "Changes that you make during a run are added to the address in the same form."
)
BRANCH_HELP = (
    "Empty: both run from the beginning. `9: a blue star` lets B begin as A and go its own way from chunk 9 on, under "
    "this prompt and the policy of B; `9 seed=7` with other noise. Branch from here, below the video, fills it in."
)
STEPS_HELP = "fewer are faster; a stream follows with its next chunk"
TIMESTEPS_HELP = "as its configuration has them, for example 1000,757,522; empty: as it was loaded; for the next run"
FRAMES_HELP = "1 for models that generate frame by frame; 0: as it was loaded; for the next run"
PATH_HELP = "Empty: as the seed says. 0,3,1 repeats a future of the Explore tab or of `fkv search`."
SAME_FUTURE = (
    "A branch differs in something: change the prompt, the seed or the policy of B, then press Branch from here."
)
NOTHING_TO_UNDO = "There is no change of this run to take back; frames that were flushed or cut off do not come back."
UNREAD = "This run cannot be read, so it cannot be branched. Press Go live, then Branch from here."
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
AT_ONCE = PRIVATE | {"queue": False}
LATEST = AT_ONCE | {"trigger_mode": "always_last"}


class Controls(NamedTuple):
    """Components of the tab that events read or change."""

    prompt: gr.Textbox
    go: gr.Button
    change: gr.Button
    flush: gr.Button
    cut: gr.Button
    pause: gr.Button
    step: gr.Button
    stop: gr.Button
    hint: gr.HTML
    view: gr.Radio
    length: gr.Number
    seed: gr.Number
    die: gr.Button
    steps: gr.Slider
    stage: gr.HTML
    policies: dict[str, gr.Dropdown]
    pickers: dict[str, gr.HTML]
    threshold: gr.Slider
    recache: gr.Checkbox
    story: gr.Textbox
    storyboard: gr.Accordion
    branch: gr.Textbox
    timesteps: gr.Textbox
    frames: gr.Number
    path: gr.Textbox
    plain: gr.Checkbox
    record: gr.Button
    download: gr.DownloadButton
    drawers: gr.Column

    @property
    def form(self) -> list[gr.components.Component]:
        """The fields that a link brings back, in the order in which `Handlers.restore` returns them."""
        policies = self.policies
        return [
            self.prompt,
            self.seed,
            self.length,
            self.view,
            policies["A"],
            policies["B"],
            self.threshold,
            self.story,
            self.steps,
            self.branch,
            self.timesteps,
            self.frames,
            self.path,
        ]

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a run changes while it goes on: the stage, then the buttons in the order of `_buttons`."""
        return [self.stage, self.go, self.change, self.flush, self.cut, self.pause, self.step, self.stop]


def live_tab(page: gr.Blocks, model: VideoModel, registry: Registry) -> Controls:
    """Build the tab inside the page that is being built."""
    recorded = _recorded(model, registry)
    controls = _controls(model, recorded)
    _wire(page, controls, Handlers(model, registry, controls, recorded))
    return controls


def _controls(model: VideoModel, recorded: dict[str, Any]) -> Controls:
    """Build the components. recorded : what the stage shows at first."""
    first, second = model.policies
    with gr.Column(elem_id="fkv-controls"):
        with gr.Row(elem_id="fkv-prompt"):
            example = model.examples[0] if model.examples else ""
            prompt = gr.Textbox(example, label="Prompt", lines=1, max_lines=1, scale=6, min_width=320)
            go = gr.Button("Go live", variant="primary", elem_id="fkv-go", scale=1, min_width=110)
            change = gr.Button("Change prompt", elem_id="fkv-change", interactive=False, scale=1, min_width=140)
            flush = gr.Button("Flush", elem_id="fkv-flush", interactive=False, scale=1, min_width=80)
            cut = gr.Button("Cut", elem_id="fkv-cut", interactive=False, scale=1, min_width=70)
            pause = gr.Button("Pause", elem_id="fkv-pause", interactive=False, scale=1, min_width=100)
            step = gr.Button("Step", elem_id="fkv-step", interactive=False, scale=1, min_width=80)
            stop = gr.Button("Stop", elem_id="fkv-stop", interactive=False, scale=1, min_width=90)
            hint = gr.HTML(_hint([]), apply_default_css=False, elem_id="fkv-hint")
        with gr.Row(elem_id="fkv-choices"):
            with gr.Column(scale=5, min_width=320):
                if model.examples:
                    examples = [[text] for text in model.examples[:EXAMPLES]]
                    gr.Examples(examples, prompt, elem_id="fkv-examples", api_visibility="private")
                if draws_world(model):
                    gr.HTML(
                        {"groups": GROUPS, "synonyms": SYNONYMS},
                        js_on_load=script("words"),
                        apply_default_css=False,
                        elem_id="fkv-words",
                    )
            with gr.Column(scale=6, min_width=320), gr.Row():
                choices = policy_field.views(first, second)
                view = gr.Radio(choices, value="AB", label="Stream", scale=3, min_width=300)
                length = gr.Number(CHUNKS, label="Chunks (0: endless)", precision=0, scale=1, min_width=150)
                seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=90)
                die = gr.Button("Random", elem_id="fkv-die", size="sm", scale=0, min_width=76)
    stage = gr.HTML(
        recorded,
        html_template=page_asset("stage.html"),
        js_on_load=script("stage", "look", "branch"),
        streams=["A", "B"],
        facts=page_facts(),
        focus=first_focus(model.geometry, model.roles),
        apply_default_css=False,
        elem_id="fkv-stage",
    )
    rules = policy_picker.catalogue()
    policies: dict[str, gr.Dropdown] = {}
    pickers: dict[str, gr.HTML] = {}
    with gr.Accordion("Policies and parameters", open=False, elem_id="fkv-advanced"):
        with gr.Row():
            for name, policy in (("A", first), ("B", second)):
                with gr.Column():
                    policies[name] = gr.Dropdown(
                        list(POLICIES), value=policy, label=f"Policy of {name}", allow_custom_value=True
                    )
            with gr.Column():
                split = model.profile_threshold
                threshold = gr.Slider(
                    0,
                    1,
                    split or 0,
                    step=0.01,
                    label="Threshold of static heads",
                    info=policy_field.split_info(model, split),
                    interactive=split is not None,
                )
                most = len(model.schedule.sigmas)
                steps = gr.Slider(
                    1,
                    max(most, 2),  # a slider needs two values
                    most,
                    step=1,
                    label="Denoising steps of a chunk",
                    info=STEPS_HELP,
                    interactive=most > 1,
                )
                real = not draws_world(model)
                timesteps = gr.Textbox("", label="Denoising timesteps", info=TIMESTEPS_HELP, max_lines=1, visible=real)
                frames = gr.Number(0, label="Latent frames of a chunk", info=FRAMES_HELP, precision=0, visible=real)
                recache = gr.Checkbox(
                    False, label="Re-cache when the prompt changes", info=policy_field.recache_info(first, second)
                )
        with gr.Row():
            for name, policy in (("A", first), ("B", second)):
                with gr.Column(min_width=320):
                    pickers[name] = gr.HTML(
                        policy_picker.picked(model, name, policy),
                        html_template=page_asset("picker.html"),
                        js_on_load=script("picker", "pick"),
                        catalogue=rules,
                        facts=page_facts(),
                        apply_default_css=False,
                    )
    with gr.Accordion("Storyboard", open=False, elem_id="fkv-story") as storyboard:
        story = gr.Textbox(
            "", label="What changes at which chunk", info=STORY_HELP, placeholder=STORY, lines=3, max_lines=12
        )
        branch = gr.Textbox("", label="Where B leaves A", info=BRANCH_HELP, placeholder=BRANCH_EXAMPLE, max_lines=1)
        path = gr.Textbox("", label="Noise of each chunk", info=PATH_HELP, placeholder="0,3,1", max_lines=1)
    drawers = gr.Column(elem_id="fkv-drawers")  # of other files, such as the director's
    with gr.Accordion("Record to MP4", open=False, elem_id="fkv-record"), gr.Row():
        plain = gr.Checkbox(False, label="Plain", info="only the frames, without labels and charts", scale=2)
        record = gr.Button("Make MP4", elem_id="fkv-film", scale=1)
        download = gr.DownloadButton(NO_RECORDING, elem_id="fkv-fetch", interactive=False, scale=2)
    gr.HTML(about.html(), apply_default_css=False, elem_id="fkv-about")
    return Controls(
        prompt=prompt,
        go=go,
        change=change,
        flush=flush,
        cut=cut,
        pause=pause,
        step=step,
        stop=stop,
        hint=hint,
        view=view,
        length=length,
        seed=seed,
        die=die,
        steps=steps,
        stage=stage,
        policies=policies,
        pickers=pickers,
        threshold=threshold,
        recache=recache,
        story=story,
        storyboard=storyboard,
        branch=branch,
        timesteps=timesteps,
        frames=frames,
        path=path,
        plain=plain,
        record=record,
        download=download,
        drawers=drawers,
    )


class Handlers:
    """What the tab's events do. Gradio gives `request` to every handler that has it as a parameter.

    Args:
        model: What generates.
        registry: The runs of all visitors.
        controls: The components, by which a form is read.
        recorded: What the stage shows at first, empty where there is no recording.
    """

    def __init__(self, model: VideoModel, registry: Registry, controls: Controls, recorded: dict[str, Any]) -> None:
        self._model = model
        self._registry = registry
        self._controls = controls
        self._recorded = recorded
        self._artifacts = Artifacts()
        self._generating = generating(model, registry.limits.together)
        self.concurrency = (
            registry.limits.waiting + 8
        )  # runs that generate or wait, and some to be told that the queue is full

    def running(self, request: gr.Request) -> Run | None:
        """The visitor's run, while it generates or waits for its turn."""
        return self._registry.of(request.session_hash)

    # A run from its beginning to its end.

    def start(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Begin a run, and update the stage and the buttons until it ends."""
        registry = self._registry
        try:
            plan = self._plan(form)
        except ValueError as error:
            yield [{"state": "error", "text": sentence(error)}, *_buttons("error")]
            return
        run = registry.begin(request.session_hash)
        run.history = History(Settings.of(plan, self._model))
        try:
            with closing(live(self._model, plan, run, registry.queue, registry.limits, self._generating)) as manifests:
                for manifest in manifests:
                    yield [manifest, *_buttons(manifest["state"])]
        finally:
            if run.ended in ("left", "idle"):  # nobody is there to look back at it
                registry.forget(run)

    def enter(self, form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        """Enter in the prompt changes the prompt of a run, or begins one."""
        controls = self._controls
        if self.running(request):
            self.change_prompt(form[controls.prompt], form[controls.recache], request)
            yield [gr.skip()] * len(controls.shown)
        else:
            yield from self.start(form, request)

    def branch(self, form: dict[Any, Any], event: gr.EventData, request: gr.Request) -> Iterator[list[Any]]:
        """Begin a run that repeats the run shown up to a chunk, and goes on from there as it did and as the form says.

        Yields:
            What `start` yields, and the form of the new run.
        """
        controls = self._controls
        unchanged = [gr.skip()] * len(controls.form)
        try:
            past = dict(parse_qsl(str(event._data["query"]).lstrip("?")))
            values = branched(
                past,
                int(event._data["chunk"]),
                str(event._data["prompt"]),
                Future(form[controls.prompt], form[controls.seed], str(form[controls.policies["B"]])),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = sentence(error) if type(error) is ValueError else UNREAD
            yield [{"state": "error", "text": text}, *_buttons("error"), *unchanged]
            return
        *others, story, branch = values
        rest = [past.get("schedule", ""), _number(past.get("frames")) or 0, past.get("path", "")]
        new = dict(zip(controls.form, [*others, *self._with_steps(story), branch, *rest], strict=True))
        new[controls.length] = form[controls.length]
        if new[controls.threshold] is None:
            new[controls.threshold] = self._model.profile_threshold or form[controls.threshold]
        for shown in self.start(form | new, request):
            yield [*shown, *new.values()]
            new = dict.fromkeys(new, gr.skip())

    def _plan(self, form: dict[Any, Any]) -> Plan:
        controls = self._controls
        threshold = form[controls.threshold]
        released = self._model.profile_threshold
        steps = int(form[controls.steps])
        sampling = Sampling.read(form[controls.timesteps], form[controls.frames])
        return Plan.from_form(
            prompt=form[controls.prompt],
            seed=form[controls.seed],
            length=form[controls.length],
            view=form[controls.view],
            a=form[controls.policies["A"]],
            b=form[controls.policies["B"]],
            threshold=None if released is None or threshold == released else threshold,
            story=form[controls.story],
            branch=form[controls.branch],
            steps=None if steps == len(self._model.schedule.sigmas) else steps,
            roles=self._model.roles,
            chunk_seconds=sampling.of(self._model).chunk_seconds,
            sampling=sampling,
            path=form[controls.path],
        )

    # Control of a run.

    def toggle_pause(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.toggle()

    def step(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.step()

    def stop(self, request: gr.Request) -> None:
        if run := self.running(request):
            run.stop()

    # Changes of a run.

    def change_prompt(self, prompt: str, recache: bool, request: gr.Request) -> None:
        self._add(SetPrompt(prompt, recache), request)

    def flush(self, request: gr.Request) -> None:
        self._add(Flush(), request)

    def cut(self, request: gr.Request) -> None:
        self._add(Cut(), request)

    def _add(self, change: Change, request: gr.Request) -> None:
        if run := self.running(request):
            run.add_change(change)

    def undo(self, request: gr.Request) -> list[Any]:
        """Take the last change of the run back, and show in the fields what holds then."""
        run = self.running(request)
        if run is None or run.history is None or not run.undo():
            return [_hint([NOTHING_TO_UNDO]), *[gr.skip()] * 5]
        now = run.history.now
        threshold = now.roles.threshold if now.roles else None
        fields = [now.prompt, now.policies.get("A"), now.policies.get("B"), threshold, now.steps]
        return [_hint([]), *(gr.skip() if value is None else value for value in fields)]

    def change_steps(self, steps: float, request: gr.Request) -> None:
        self._add(SetSteps(int(steps)), request)

    def change_policy_of(self, stream: str) -> Callable[..., None]:
        """A handler for the policy field of a stream."""

        def change_policy(text: str | None, request: gr.Request) -> None:
            self._add(SetPolicy(stream, str(text or "").strip()), request)

        return change_policy

    def picked_of(self, stream: str) -> Callable[[Any], dict[str, Any]]:
        """What the picker of a stream shows for a policy field."""
        return partial(policy_picker.picked, self._model, stream)

    def pick_policy_of(self, stream: str) -> Callable[..., list[Any]]:
        """A handler for the policy picker of a stream, which writes into the policy field."""
        change_policy = self.change_policy_of(stream)
        picked = self.picked_of(stream)

        def pick_policy(text: str | None, event: gr.EventData, request: gr.Request) -> list[Any]:
            try:
                policy = policy_picker.choose(text, event._data["name"], event._data["values"])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                return [gr.skip(), picked(text) | {"problem": sentence(error)}]
            change_policy(policy, request)
            return [policy, picked(policy)]

        return pick_policy

    def change_threshold(self, value: float, request: gr.Request) -> Any:
        if run := self.running(request):
            run.add_change(SetRoles(at_threshold(self._model.roles, value)))
        return gr.Slider(info=policy_field.split_info(self._model, value))

    # Hints below the prompt.

    def hint(self, text: str | None, story: str | None) -> str:
        """Say what is not read of the prompt and of the storyboard's prompts."""
        try:
            later = parse_story(story or "", self._model.roles, None, self._model.chunk_seconds).prompts
        except ValueError:  # said when the run starts
            later = []
        return _hint(self._model.hints_of([text or "", *later]))

    def hint_while_typing(self, text: str | None) -> str:
        return _hint(self._model.hints(LAST_WORD.sub("", text or "")))

    def hint_for_next_run(self, text: str | None, request: gr.Request) -> Any:
        """Say that a setting applies to the next run, while one goes on."""
        return _hint([*self._model.hints(text or ""), NEXT_RUN]) if self.running(request) else gr.skip()

    # The recording.

    def record(self, plain: bool, request: gr.Request) -> Iterator[Any]:
        """Encode what is kept of the visitor's newest run, which may still go on."""
        run = self._registry.last(request.session_hash)
        if run is None or not run.count:
            yield gr.DownloadButton("Go live first: there is nothing to record", interactive=False)
            return
        recording = Recording(run.chunks(), self._model.fps, run.source, plain)
        with self._artifacts.write(recording.name) as path:
            with Encoding(recording, path).running() as work:
                while work.wait(0.5):
                    yield gr.DownloadButton(f"Writing chunk {work.done + 1} of {work.total}", interactive=False)
            if work.problem:
                yield gr.DownloadButton(work.problem, interactive=False)
                return
            label = f"Download MP4: {work.total} chunks, {path.stat().st_size / 1e6:.1f} MB"
            yield gr.DownloadButton(label, value=path, interactive=True, variant="primary")

    def forget_recording(self) -> gr.DownloadButton:
        """Withdraw the recording of the last run when a new one begins."""
        return gr.DownloadButton(NO_RECORDING, value=None, interactive=False, variant="secondary")

    # Links.

    def restore(self, request: gr.Request) -> list[Any]:
        """The stage, the Storyboard and the form as the address says, so that a link brings a run back."""
        get = request.query_params.get
        text = None
        story, steps = self._with_steps(get("story") or "")
        planned = bool(story.strip() or get("branch"))
        linked = LINKED.format(PLANNED if planned else "")
        if get("model") not in (None, self._model.name):
            text = OTHER_MODEL.format(get("model"), self._model.name)
        elif self._recorded and get("prompt"):
            text = linked
        read = {
            "prompt": get("prompt"),
            "seed": _number(get("seed")),
            "length": _number(get("length")),
            "view": get("view") if get("view") in VIEWS else None,
            "a": get("a"),
            "b": get("b"),
            "threshold": _share(get("threshold")),
            "story": story if get("story") else None,
            "steps": steps,
            "branch": get("branch"),
            "schedule": get("schedule"),
            "frames": _number(get("frames")),
            "path": get("path"),
        }
        if unread := [name for name, value in read.items() if get(name) and value is None]:
            text = f"{text or linked} Not read: {', '.join(f'{name}={get(name)!r:.40}' for name in unread)}."
        stage = {"state": "idle"} | self._recorded | {"text": text} if text else None
        values = [stage, gr.Accordion(open=True) if planned else None, *read.values()]
        return [gr.skip() if value is None else value for value in values]

    def _with_steps(self, story: str) -> tuple[str, int]:
        """Split a link's storyboard into what the storyboard's field shows and the steps with which the run begins."""
        most = len(self._model.schedule.sigmas)
        opening = OPENING_STEPS.match(story)
        if opening is None or int(opening[1]) > most:
            return story, most
        return story[opening.end() :], int(opening[1])


class Future(NamedTuple):
    """What B does after the branch."""

    prompt: str
    seed: int
    policy: str


def branched(past: dict[str, str], chunk: int, prompt: str, future: Future) -> list[Any]:
    """The form of a run that branches from another one.

    Args:
        past: The fields of the other run's link.
        chunk: The last chunk that both futures have, counted from 1.
        prompt: Of that chunk.
        future: What B does afterwards.

    Returns:
        Values of `Controls.form`; None for the length, and for the model's own threshold.

    Raises:
        ValueError: B would do what A does.
    """
    name = "b" if past.get("view") == "B" else "a"
    policy, seed = past[name], _number(past.get("seed")) or 0
    other = Branch(
        chunk, "" if future.prompt.strip() == prompt else future.prompt, None if future.seed == seed else future.seed
    )
    if future.policy == policy and not other.prompt and other.seed is None:
        raise ValueError(SAME_FUTURE)
    lines = [line.partition(":") for line in past.get("story", "").splitlines()]
    kept = [
        f"{number}:{what.replace(f'{name.upper()} =', 'A =', 1)}"
        for number, _, what in lines
        if (_number(number.strip()) or 0) <= chunk and not what.strip().startswith("A =" if name == "b" else "B =")
    ]
    threshold = _share(past.get("threshold"))
    return [past["prompt"], seed, None, "AB", policy, future.policy, threshold, "\n".join(kept), other.write()]


def _wire(page: gr.Blocks, controls: Controls, handlers: Handlers) -> None:
    """Connect the components with what their events do."""
    c = controls
    h = handlers
    queued = PRIVATE | {"concurrency_id": "stream", "concurrency_limit": h.concurrency}
    form: set[gr.blocks.Block] = {*c.form, c.recache}
    c.go.click(h.start, form, c.shown, **queued)
    c.go.click(h.forget_recording, None, c.download, **AT_ONCE)
    c.prompt.submit(h.enter, form, c.shown, **queued)
    c.change.click(h.change_prompt, [c.prompt, c.recache], None, **AT_ONCE)
    c.stage.branch(h.branch, form, [*c.shown, *c.form], **queued)
    c.stage.branch(h.forget_recording, None, c.download, **AT_ONCE)
    c.stage.undo(h.undo, None, [c.hint, c.prompt, *c.policies.values(), c.threshold, c.steps], **AT_ONCE)
    c.flush.click(h.flush, None, None, **AT_ONCE)
    c.cut.click(h.cut, None, None, **AT_ONCE)
    c.pause.click(h.toggle_pause, None, None, **AT_ONCE)
    c.step.click(h.step, None, None, **AT_ONCE)
    c.stop.click(h.stop, None, None, **AT_ONCE)
    one_at_a_time = PRIVATE | {"concurrency_id": "film", "concurrency_limit": 1, "trigger_mode": "once"}
    c.record.click(h.record, c.plain, c.download, **one_at_a_time)
    c.prompt.change(h.hint_while_typing, c.prompt, c.hint, **LATEST)
    c.prompt.change(None, c.prompt, None, js=TELL_PAGE, api_visibility="private")
    c.die.click(None, None, c.seed, js=ROLL, api_visibility="private")
    gr.on([c.prompt.blur, c.story.blur, c.go.click], h.hint, [c.prompt, c.story], c.hint, **LATEST)
    gr.on([c.view.input, c.length.input, c.seed.input], h.hint_for_next_run, c.prompt, c.hint, **LATEST)
    c.steps.input(h.change_steps, c.steps, None, **LATEST)
    if c.threshold.interactive:
        c.threshold.input(h.change_threshold, c.threshold, c.threshold, js=f"(share) => {WITHIN}", **LATEST)
    both = list(c.policies.values())
    for name, policy in c.policies.items():
        picker = c.pickers[name]
        policy.input(h.change_policy_of(name), policy, None, **AT_ONCE)
        policy.change(lambda a, b: gr.Radio(choices=policy_field.views(a, b)), both, c.view, **AT_ONCE)
        policy.change(lambda a, b: gr.Checkbox(info=policy_field.recache_info(a, b)), both, c.recache, **AT_ONCE)
        policy.change(h.picked_of(name), policy, picker, **LATEST)
        picker.pick(h.pick_policy_of(name), policy, [policy, picker], **LATEST)
    page.load(h.restore, None, [c.stage, c.storyboard, *c.form], **AT_ONCE | {"trigger_mode": "once"})


def _recorded(model: VideoModel, registry: Registry) -> dict[str, Any]:
    """What the stage shows at first: a recording of this very model, where there is one."""
    replay = sample_run.replay(model)
    if replay is None:
        return {}
    run, manifest = replay
    registry.pin(run)
    return manifest


def _buttons(state: str) -> list[Any]:
    """Go live, Change prompt, Flush, Cut, Pause, Step and Stop as they are in a state."""
    running = state in ("queued", "live", "paused")
    streams = state in ("live", "paused")
    return [
        gr.Button("Start over" if running else "Go live", variant="secondary" if running else "primary"),
        gr.Button(interactive=streams, variant="primary" if streams else "secondary"),
        gr.Button(interactive=streams),
        gr.Button(interactive=streams),
        gr.Button("Resume" if state == "paused" else "Pause", interactive=streams),
        gr.Button(interactive=state == "paused"),
        gr.Button(interactive=running),
    ]


def _hint(sentences: Sequence[str]) -> str:
    return f'<p class="fkv-hint" role="status">{escape(" ".join(sentences))}</p>'


def _share(text: str | None) -> float | None:
    try:
        share = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(share) else min(1.0, max(0.0, share))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 12 else None
