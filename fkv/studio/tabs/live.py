"""The Live tab: prompt, controls, stage. What a run does is `live`; what the picture does is the script in `assets/studio`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from fkv.models.base import VideoModel
from fkv.policies import FOR_ALL, POLICIES, Policy, defaults, parse, write
from fkv.policies.silenced import silence
from fkv.storyboard import SetPolicy, SetPrompt, SetRoles, at_threshold
from fkv.studio.live import sample_run
from fkv.studio.errors import sentence
from fkv.studio.live import forms
from fkv.studio.live.live import live
from fkv.studio.live.plan import Plan
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.live.zerogpu import generating
from fkv.studio.media.artifacts import Shelf
from fkv.studio.media.assets import page_asset
from fkv.studio.media.mp4 import Encoding, Film

from . import about

SCRIPTS = ("player.js", "charts.js", "xray.js", "views.js", "main.js")
CHUNKS = 40
UNFINISHED = re.compile(r"\w+$")  # the word that is being typed
EXAMPLES = 3
NEXT_RUN = "Stream, chunks and seed are those of the next run: Start anew takes them."
LINKED = "The address holds the run that is set above. Go live paints it; until then a recording of another one plays."
WITHIN = "Math.min(1, Math.max(0, share))"  # a slider refuses what is typed beyond its ends
NO_FILM = "Nothing recorded yet"
STORY = "6: a cyan star drifting over the sea at night\n12: A = sliding-window\n18: re-cache = a yellow box swinging over the mountains"
STORY_HELP = (
    "One change a line, before the chunk of that number: `6: another prompt`, `6: re-cache = another prompt`, `6: A = policy`, "
    "`6: cut = another prompt`, `6: threshold = 0.7`. Or scenes with durations: `a red ball [10s] | the same ball at night [12#]`, "
    "in seconds or chunks; `#` marks a hard cut, which changes nothing in the cache today. "
    "What you change by hand while it runs goes into the address in the same way."
)


@dataclasses.dataclass(frozen=True)
class Form:
    """Fields of this tab that another one changes, too: how the streams go on, and how the next run begins."""

    policies: dict[str, gr.Dropdown]
    threshold: gr.Slider


def live_tab(page: gr.Blocks, model: VideoModel, registry: Registry) -> Form:
    """Build the tab inside the page that is being built."""
    lean, reference = model.policies
    with gr.Column(elem_id="fkv-controls"):
        with gr.Row(elem_id="fkv-prompt"):
            prompt = gr.Textbox(
                model.examples[0] if model.examples else "",
                label="Prompt",
                lines=1,
                max_lines=1,
                scale=6,
                min_width=320,
            )
            go = gr.Button("Go live", variant="primary", elem_id="fkv-go", scale=1, min_width=110)
            change = gr.Button("Change prompt", elem_id="fkv-change", interactive=False, scale=1, min_width=140)
            pause = gr.Button("Pause", elem_id="fkv-pause", interactive=False, scale=1, min_width=100)
            step = gr.Button("Step", elem_id="fkv-step", interactive=False, scale=1, min_width=80)
            stop = gr.Button("Stop", elem_id="fkv-stop", interactive=False, scale=1, min_width=90)
        with gr.Row(elem_id="fkv-choices"):
            with gr.Column(scale=5, min_width=320):
                if model.examples:
                    gr.Examples(
                        [[text] for text in model.examples[:EXAMPLES]],
                        prompt,
                        elem_id="fkv-examples",
                        api_visibility="private",
                    )
                hint = gr.HTML('<p class="fkv-hint"></p>', apply_default_css=False, elem_id="fkv-hint")
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    view = gr.Radio(views(lean, reference), value="AB", label="Stream", scale=3, min_width=300)
                    length = gr.Number(CHUNKS, label="Chunks (0: endless)", precision=0, scale=1, min_width=165)
                    seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=100)
    recorded = _recorded(model, registry)
    stage = gr.HTML(
        recorded,
        html_template=page_asset("stage.html"),
        js_on_load="\n".join(map(page_asset, SCRIPTS)),
        apply_default_css=False,
        elem_id="fkv-stage",
    )
    own = model.profile_threshold
    with gr.Accordion("Policies and parameters", open=False, elem_id="fkv-advanced"):
        with gr.Row():
            with gr.Column():
                first = gr.Dropdown(list(POLICIES), value=lean, label="Policy of A", allow_custom_value=True)
                keep_a = _retention("A", lean)
            with gr.Column():
                second = gr.Dropdown(list(POLICIES), value=reference, label="Policy of B", allow_custom_value=True)
                keep_b = _retention("B", reference)
            with gr.Column():
                threshold = gr.Slider(
                    0,
                    1,
                    own or 0,
                    step=0.01,
                    label="Threshold of static heads",
                    info=parted(model, own),
                    interactive=own is not None,
                )
                recache = gr.Checkbox(False, label="Re-cache when the prompt changes", info=_recaching(lean, reference))
        gr.Markdown(policy_table())
    with gr.Accordion("Storyboard", open=False, elem_id="fkv-story"):
        story = gr.Textbox(
            "", label="What changes at which chunk", info=STORY_HELP, placeholder=STORY, lines=3, max_lines=12
        )
    with gr.Accordion("Record to MP4", open=False, elem_id="fkv-record"), gr.Row():
        plain = gr.Checkbox(False, label="Plain", info="the pictures alone, without labels and charts", scale=2)
        film = gr.Button("Make MP4", elem_id="fkv-film", scale=1)
        fetch = gr.DownloadButton(NO_FILM, elem_id="fkv-fetch", interactive=False, scale=2)
    gr.HTML(about.html(), apply_default_css=False, elem_id="fkv-about")

    fields = [prompt, seed, length, view, first, second, threshold, story]
    shown = [stage, go, change, pause, step, stop]
    shelf, generate = Shelf(), generating(model)

    def start(form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        cut = None if own is None or form[threshold] == own else form[threshold]
        try:
            plan = Plan.from_form(
                prompt=form[prompt],
                seed=form[seed],
                length=form[length],
                view=form[view],
                a=form[first],
                b=form[second],
                threshold=cut,
                story=form[story],
                roles=model.roles,
                chunk_seconds=model.chunk_seconds,
            )
        except ValueError as error:
            yield [{"state": "error", "text": sentence(error)}, *_buttons("error")]
            return
        run = registry.begin(request.session_hash)
        try:
            with closing(live(model, plan, run, registry.queue, registry.limits, generate)) as manifests:
                for manifest in manifests:
                    yield [manifest, *_buttons(manifest["state"])]
        finally:
            if run.ended in ("left", "idle"):  # nobody is there to look back at it
                registry.forget(run)

    def enter(form: dict[Any, Any], request: gr.Request) -> Iterator[list[Any]]:
        if running(request):
            change_prompt(form[prompt], form[recache], request)
            yield [gr.skip()] * len(shown)
        else:
            yield from start(form, request)

    def running(request: gr.Request) -> Run | None:
        return registry.of(request.session_hash)

    def for_next_run(text: str | None, request: gr.Request) -> Any:
        return _hint([*model.hints(text or ""), NEXT_RUN]) if running(request) else gr.skip()

    def change_prompt(prompt: str, recache: bool, request: gr.Request) -> None:
        if run := running(request):
            run.add_change(SetPrompt(prompt, recache))

    def change_policy_of(name: str) -> Callable[..., None]:
        def change_policy(text: str | None, request: gr.Request) -> None:
            if run := running(request):
                run.add_change(SetPolicy(name, str(text or "").strip()))

        return change_policy

    def change_retention_of(name: str) -> Callable[..., Any]:
        def change_retention(text: str | None, share: float, request: gr.Request) -> Any:
            if (kept := _kept(text, share)) is None:
                return gr.skip()
            change_policy_of(name)(kept, request)
            return kept

        return change_retention

    def change_threshold(value: float, request: gr.Request) -> Any:
        if run := running(request):
            run.add_change(SetRoles(at_threshold(model.roles, value)))
        return gr.Slider(info=parted(model, value))

    def toggle_pause(request: gr.Request) -> None:
        if run := running(request):
            run.toggle()

    def step_once(request: gr.Request) -> None:
        if run := running(request):
            run.step()

    def stop_run(request: gr.Request) -> None:
        if run := running(request):
            run.stop()

    def record(plain: bool, request: gr.Request) -> Iterator[Any]:
        """Encode what is kept of the visitor's newest run; the stream, if it is still one, goes on meanwhile."""
        run = registry.last(request.session_hash)
        if run is None or not run.count:
            yield gr.DownloadButton("Go live first: there is nothing to record", interactive=False)
            return
        with shelf.place("forcing-kv.mp4") as path:
            with Encoding(Film(run.chunks(), model.fps, run.source, plain), path).running() as work:
                while work.wait(0.5):
                    yield gr.DownloadButton(f"Writing chunk {work.done + 1} of {work.total}", interactive=False)
            if work.problem:
                yield gr.DownloadButton(work.problem, interactive=False)
                return
            label = f"Download MP4: {work.total} chunks, {path.stat().st_size / 1e6:.1f} MB"
            yield gr.DownloadButton(label, value=path, interactive=True, variant="primary")

    def forget_film() -> gr.DownloadButton:
        """A new run begins: the film of the one before is not offered as its own."""
        return gr.DownloadButton(NO_FILM, value=None, interactive=False, variant="secondary")

    def restore(request: gr.Request) -> list[Any]:
        """The stage and the form as the address says, so that a link brings a run back."""
        ask = request.query_params.get
        other = f"This link was made with the model {ask('model')}; here {model.name} runs, and paints other pictures."
        told = other if ask("model") not in (None, model.name) else LINKED if recorded and ask("prompt") else None
        first_seen = {"state": "idle"} | recorded | {"text": told} if told else None
        streams = ask("view") if ask("view") in ("A", "B", "AB") else None
        numbers = _number(ask("seed")), _number(ask("length"))
        values = (
            first_seen,
            ask("prompt"),
            *numbers,
            streams,
            ask("a"),
            ask("b"),
            _share(ask("threshold")),
            ask("story"),
        )
        return [gr.skip() if value is None else value for value in values]

    quiet = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
    queued, at_once = (
        quiet | {"concurrency_id": "stream", "concurrency_limit": registry.limits.waiting + 8},
        quiet | {"queue": False},
    )
    latest = at_once | {"trigger_mode": "always_last"}
    go.click(start, {*fields, recache}, shown, **queued)
    go.click(forget_film, None, fetch, **at_once)
    prompt.submit(enter, {*fields, recache}, shown, **queued)
    change.click(change_prompt, [prompt, recache], None, **at_once)
    pause.click(toggle_pause, None, None, **at_once)
    step.click(step_once, None, None, **at_once)
    stop.click(stop_run, None, None, **at_once)
    film.click(
        record, plain, fetch, **quiet | {"concurrency_id": "film", "concurrency_limit": 1, "trigger_mode": "once"}
    )
    prompt.change(lambda text: _hint(model.hints(UNFINISHED.sub("", text or ""))), prompt, hint, **latest)
    gr.on([prompt.blur, go.click], lambda text: _hint(model.hints(text or "")), prompt, hint, **latest)
    gr.on([view.input, length.input, seed.input], for_next_run, prompt, hint, **latest)
    if own is not None:
        threshold.input(change_threshold, threshold, threshold, js=f"(share) => {WITHIN}", **latest)
    for name, policy, keep in (("A", first, keep_a), ("B", second, keep_b)):
        policy.input(change_policy_of(name), policy, None, **at_once)
        policy.change(lambda a, b: gr.Radio(choices=views(a, b)), [first, second], view, **at_once)
        policy.change(lambda a, b: gr.Checkbox(info=_recaching(a, b)), [first, second], recache, **at_once)
        policy.change(lambda text: gr.Slider(**_keeping_of(text)), policy, keep, **latest)
        keep.input(change_retention_of(name), [policy, keep], policy, js=f"(text, share) => [text, {WITHIN}]", **latest)
    page.load(restore, None, [stage, *fields], **at_once | {"trigger_mode": "once"})
    return Form({"A": first, "B": second}, threshold)


def _recorded(model: VideoModel, registry: Registry) -> dict[str, Any]:
    """What the stage shows at first: the recording of this very model, where there is one."""
    replay = sample_run.replay(model)
    if replay is None:
        return {}
    registry.pin(replay[0])
    return replay[1]


def _retention(name: str, text: str) -> gr.Slider:
    return gr.Slider(0, 1, step=0.01, label=f"Retention of {name}", **_keeping_of(text))


def _keeping_of(text: str) -> dict[str, Any]:
    """The retention slider as a policy's text sets it; without effect where the policy has no such parameter."""
    share = getattr(_base(_policy(text)), "retention", None)
    if isinstance(share, float):
        return {
            "value": share,
            "interactive": True,
            "info": "share of segments that dynamic heads keep of the chunk before",
        }
    what = (
        "this policy keeps nothing by similarity"
        if share is None
        else f"a whole number of segments, {share}, is set above"
    )
    return {"value": 0, "interactive": False, "info": what}


def _kept(text: str | None, share: float) -> str | None:
    """A policy's text with another retention; None where it has none."""
    policy = _policy(text)
    if not hasattr(base := _base(policy), "retention"):
        return None
    base = dataclasses.replace(base, retention=float(share))
    return write(silence(base, policy.silenced_heads))


def _base(policy: Policy | None) -> Policy | None:
    """The policy that some heads of which may be silenced."""
    return policy and policy.unwrapped


def _policy(text: str | None) -> Policy | None:
    """The policy that is written in a field; None where none is, as in a field that was cleared."""
    try:
        return parse(forms.text(text, "the policy"))
    except ValueError:
        return None


def parted(model: VideoModel, threshold: float | None) -> str:
    """How a threshold parts the heads, in words."""
    if threshold is None:
        return "this model's heads carry no scores; profile it first"
    static = sum(map(len, at_threshold(model.roles, threshold).static))
    return f"a head is static from this score on: {static} static, {model.roles.scores.size - static} dynamic"


def _recaching(a: str, b: str) -> str:
    """What re-cache does under these policies, in words."""
    bare = [
        f"{name} ({found.name})"
        for name, text in (("A", a), ("B", b))
        if (found := _policy(text)) and found.caches != "shared"
    ]
    without = f"; not possible for {' and '.join(bare)}, which has no shared cache" if bare else ""
    return f"recompute the held frames under the new prompt{without}"


def views(a: str | None, b: str | None) -> list[tuple[str, str]]:
    """Choices of what to stream: A alone, B alone, or both."""
    found = [(stream, _policy(text)) for stream, text in (("A", a), ("B", b))]
    names = [
        {"forcing-kv": "Forcing-KV", "full": "Full"}.get(policy.name, policy.name) if policy else stream
        for stream, policy in found
    ]
    first, second = names if names[0] != names[1] else ("A", "B")
    return [(first, "A"), (second, "B"), ("Both", "AB")]


def policy_table() -> str:
    """Every policy and its parameters with their defaults, as Markdown."""
    written, does = FOR_ALL
    rows = [f"Pick a policy, or write `name:parameter=value,parameter=value`. With `{written}`, {does}.\n"]
    rows += ["| policy | | parameters and their defaults |", "|-|-|-|"]
    for policy in POLICIES.values():
        fields = ", ".join(f"`{each}`" for each in defaults(policy)) or "none"
        rows.append(f"| `{policy.name}` | {policy.help} | {fields} |")
    return "\n".join(rows)


def _buttons(state: str) -> list[Any]:
    """Go live, Change prompt, Pause, Step, Stop as they are in a state."""
    running, streams = state in ("queued", "live", "paused"), state in ("live", "paused")
    return [
        gr.Button("Start anew" if running else "Go live", variant="secondary" if running else "primary"),
        gr.Button(interactive=streams, variant="primary" if streams else "secondary"),
        gr.Button("Resume" if state == "paused" else "Pause", interactive=streams),
        gr.Button(interactive=state == "paused"),
        gr.Button(interactive=running),
    ]


def _hint(sentences: Sequence[str]) -> str:
    return f'<p class="fkv-hint" role="status">{escape(" ".join(sentences))}</p>'


def _share(text: str | None) -> float | None:
    try:
        return min(1.0, max(0.0, float(text)))
    except (TypeError, ValueError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) < 12 else None
