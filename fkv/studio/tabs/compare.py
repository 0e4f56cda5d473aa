"""The Compare tab: which policies on which prompts and seeds, how far it is, and the results. The work is
`live.comparison`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from fkv.analysis.measures import EQUAL_DB
from fkv.analysis.oracle_checks import draws_world
from fkv.models.base import VideoModel
from fkv.parameters import describe
from fkv.policies import POLICIES
from fkv.studio.errors import sentence
from fkv.studio.live import sample_comparison
from fkv.studio.live.comparison import Play, Progress, compare, default_prompts
from fkv.studio.live.comparison_figures import report, spreadsheet, table
from fkv.studio.live.comparison_plan import ComparisonPlan
from fkv.studio.live.disconnect import Caller
from fkv.studio.live.forms import ComparisonSize
from fkv.studio.live.run import Run
from fkv.studio.live.sessions import Registry
from fkv.studio.media import filmstrip
from fkv.studio.media.artifacts import Artifacts
from fkv.studio.media.assets import script
from fkv.world.oracle import WORDS

from .buttons import begin_and_end

CHOSEN = ["full", "forcing-kv", "sliding-window"]
CHUNKS = 7
EARLIER = 8  # finished comparisons that the page keeps
FILES = {  # to download, by what their buttons say
    "Download CSV": "forcing-kv-comparison.csv",
    "Download chart": "forcing-kv-comparison.png",
    "Download pictures": "forcing-kv-comparison-pictures.png",
    "Download JSON": "forcing-kv-comparison.json",
}
COLUMNS = {  # of the table: what they are called there and how their numbers are written
    "fps_denoise": ("denoise FPS", "{:.1f}"),
    "fps_end_to_end": ("end-to-end FPS", "{:.1f}"),
    "ratio_denoise": ("speed vs first", "{:.2f} ×"),
    "kv_bytes_peak": ("peak KV, MB", "{:.2f}"),
    "psnr_to_reference": ("PSNR vs first, dB", "{:.1f}"),
    "discontinuity": ("discontinuity", "{:.2f}"),
    "adherence": ("adherence", "{:.0%}"),
    **{word: (word, "{:.0%}") for word in WORDS},
}
NOTE = f"""<details class="fkv-small"><summary>What the figures mean</summary><p>
<b>First</b>: the first policy of the list, the reference for all others. <b>Denoise FPS</b>: video frames / seconds
of denoising, context pass and cache rebuilds. <b>End-to-end FPS</b>: video frames / seconds of all stages, decoding
included. <b>Speed vs first</b>: seconds of the first policy / seconds of this one, text encoding and decoding
excluded, with the middle half of its values over chunks; where 1 lies among them, the difference is within the
noise of this machine. All three are medians over chunks; the streams of one prompt and seed take turns on this
machine, after one warm-up chunk each; with <b>pictures only</b>, chunks that policies have in common are computed
once, frames are the same, and no stream has a speed. <b>Peak KV</b>: the most bytes of keys and values cached while a
chunk attended, 1 MB = 1,000,000 bytes. <b>PSNR vs first</b>: over all frames, mean over streams; a hybrid cache may
generate a different but equally good video from the same noise. <b>Discontinuity</b>: how much the largest
movements stand out; 1 means the video moves evenly across chunk borders. <b>Adherence</b>: the share of
{", ".join(WORDS)} that an oracle recognizes in the last five seconds of each prompt, where all prompts name them; it
needs about two seconds of video to recognize a motion.</p></details>"""
SCENES_HELP = "or scenes, a red ball [3c] | a blue star [4c]: c counts chunks, s seconds; changes tell policies apart"
READY = Progress("idle", "Every policy gets the same noise; each prompt and seed is one stream per policy.")


class Controls(NamedTuple):
    """Components of the tab that events read or change."""

    names: gr.Dropdown
    prompts: gr.Textbox
    seeds: gr.Textbox
    chunks: gr.Number
    shared: gr.Checkbox
    go: gr.Button
    cancel: gr.Button
    bar: gr.HTML
    rows: gr.HTML
    strips: gr.HTML
    plot: gr.Plot
    files: list[gr.DownloadButton]
    earlier: gr.HTML
    finished: gr.State

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a comparison changes, in the order in which `Handlers.start` yields it."""
        return [
            self.bar,
            self.rows,
            self.strips,
            self.plot,
            *self.files,
            self.go,
            self.cancel,
            self.earlier,
            self.finished,
        ]


def visitor(request: gr.Request) -> str:
    """The name under which the registry keeps a visitor's comparison, beside their stream."""
    return f"{request.session_hash} compares"


def compare_tab(model: VideoModel, registry: Registry, play: Play) -> None:
    """Build the tab inside the page that is being built."""
    controls = _controls(model)
    handlers = Handlers(model, registry, play)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    form = [controls.names, controls.prompts, controls.seeds, controls.chunks, controls.shared, controls.finished]
    waiting = registry.limits.waiting + 1
    controls.go.click(handlers.start, form, controls.shown, concurrency_limit=waiting, **quiet)
    controls.cancel.click(handlers.stop, None, None, queue=False, **quiet)


def _controls(model: VideoModel) -> Controls:
    values = {parameter.name: parameter.values for parameter in describe(ComparisonSize)}
    with gr.Column(elem_id="fkv-compare"):
        with gr.Row():
            names = gr.Dropdown(
                list(POLICIES),
                value=CHOSEN,
                multiselect=True,
                allow_custom_value=True,
                label="Policies, the reference first",
                scale=6,
                info="pick, or write name:parameter=value and press Enter",
                min_width=320,
            )
            chunks = gr.Number(
                CHUNKS, label="Chunks per stream", precision=0, info=values["chunks"], scale=1, min_width=210
            )
            seeds = gr.Textbox("0", label="Seeds", info="such as 0, 1", max_lines=1, scale=1, min_width=150)
        with gr.Row(elem_id="fkv-compare-prompts"):
            examples = "\n".join(default_prompts(model))
            prompts = gr.Textbox(
                examples,
                label="Prompts, one per line",
                info=SCENES_HELP,
                lines=4,
                max_lines=8,
                scale=6,
                min_width=320,
            )
            with gr.Column(scale=1, min_width=150):
                shared = gr.Checkbox(False, label="Pictures only", info="sooner, without speeds")
                go = gr.Button("Compare", variant="primary", elem_id="fkv-compare-go")
                cancel = gr.Button("Cancel", interactive=False)
        bar = gr.HTML(_bar(READY, 1), js_on_load=script("compared"), apply_default_css=False)
        rows = gr.HTML(_table(None, draws_world(model)), apply_default_css=False)
        strips = gr.HTML("", apply_default_css=False, elem_id="fkv-films")
        plot = gr.Plot(visible=False, show_label=False, container=False, elem_id="fkv-pareto", elem_classes="fkv-plot")
        with gr.Row():
            files = [gr.DownloadButton(label, interactive=False, size="sm", min_width=140) for label in FILES]
        gr.HTML(NOTE, apply_default_css=False, elem_classes="fkv")
        recorded = _recorded(model)
        earlier = gr.HTML(_earlier(recorded), apply_default_css=False)
        finished = gr.State(recorded)  # HTML of the recorded and this visitor's comparisons, the newest first
    return Controls(
        names=names,
        prompts=prompts,
        seeds=seeds,
        chunks=chunks,
        shared=shared,
        go=go,
        cancel=cancel,
        bar=bar,
        rows=rows,
        strips=strips,
        plot=plot,
        files=files,
        earlier=earlier,
        finished=finished,
    )


class Handlers:
    """What the tab's events do."""

    def __init__(self, model: VideoModel, registry: Registry, play: Play) -> None:
        self._model = model
        self._registry = registry
        self._play = play
        self._artifacts = Artifacts()
        self._draws_world = draws_world(model)
        self._device = model.device  # read here: on ZeroGPU only the main thread knows the GPU by name

    def start(
        self,
        names: list[str],
        prompts: str,
        seeds: str,
        chunks: float | None,
        shared: bool,
        finished: list[str],
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Run a comparison, and update the tab until it ends; `finished` are the tables of those before."""
        registry = self._registry
        try:
            plan = ComparisonPlan.from_form(
                names, prompts, seeds, chunks, shared=shared, chunk_seconds=self._model.chunk_seconds
            )
        except ValueError as error:
            problem = _bar(Progress("error", sentence(error)), 1)
            yield [problem, *[gr.skip()] * (3 + len(FILES)), *begin_and_end("error"), *[gr.skip()] * 2]
            return
        run = registry.begin(visitor(request))
        hints = " ".join(self._model.hints_of(plan.texts(self._model.chunk_seconds)))
        last = READY
        comparison = compare(self._model, self._play, plan, run, registry.queue, registry.limits, Caller())
        with closing(comparison) as steps:
            for step in steps:
                shown = self._shown(plan, run, replace(step, text=f"{step.text} {hints}".strip()), last)
                last = step
                yield [*shown, _earlier(finished), gr.skip()]
        if last.records:
            yield [*[gr.skip()] * (len(shown) + 1), [_told(plan, shown[1]), *finished][:EARLIER]]

    def stop(self, request: gr.Request) -> None:
        if run := self._registry.of(visitor(request)):
            run.stop()

    def _shown(self, plan: ComparisonPlan, run: Run, step: Progress, last: Progress) -> list[Any]:
        """What a step changes on the page; what has not changed since the last step is not sent again."""
        figures = table(step.records) if step.records else None
        complete = _complete(step)
        plot = gr.skip()
        if complete > _complete(last):
            plot = gr.Plot(visible=False) if plan.shared else _pareto(figures)
        files: Sequence[Any] = [gr.DownloadButton(interactive=False)] * len(FILES)
        if step.state in ("done", "error") and complete:
            told = report(self._model, plan, step.records, self._device, run.ended)
            files = self._save(figures, told, step.strips)
        strips = filmstrip.html(step.strips) if step.strips is not last.strips else gr.skip()
        rows = _table(figures, self._draws_world)
        return [_bar(step, plan.total), rows, strips, plot, *files, *begin_and_end(step.state)]

    def _save(self, figures: pd.DataFrame, told: dict[str, Any], strips: Sequence[filmstrip.Filmstrip]) -> list[Any]:
        """Write the files, and offer them behind their buttons."""
        from fkv.analysis.figures import Pareto

        writers: dict[str, Callable[[Path], object]] = {
            "Download CSV": spreadsheet(told).to_csv,
            "Download JSON": lambda path: path.write_text(json.dumps(told, indent=1), encoding="utf-8"),
        }
        if "timing" not in told:  # the chart is of speeds
            writers["Download chart"] = lambda path: Pareto(figures).matplotlib().savefig(path, dpi=160)
        if any(any(strip.rows.values()) for strip in strips):
            writers["Download pictures"] = partial(filmstrip.save, strips, self._model.chunk_seconds)
        buttons = []
        with ExitStack() as files:
            for label, name in FILES.items():
                if label not in writers:
                    buttons.append(gr.DownloadButton(interactive=False))
                    continue
                path = files.enter_context(self._artifacts.write(name))
                writers[label](path)
                buttons.append(gr.DownloadButton(value=str(path), interactive=True))
        return buttons


def _told(plan: ComparisonPlan, rows: str) -> str:
    """A finished comparison as HTML, folded in: what was compared, and its table."""
    prompts = plan.prompts[0] if len(plan.prompts) == 1 else f"{len(plan.prompts)} prompts"
    title = f"{', '.join(plan.policies)} · {prompts} · seeds {', '.join(map(str, plan.seeds))} · {plan.chunks} chunks"
    return f'<details class="fkv-small"><summary>{escape(title)}</summary>{rows}</details>'


def _recorded(model: VideoModel) -> list[str]:
    """The recorded comparison of all policies as HTML, unfolded; none where the model is another one."""
    told = sample_comparison.recorded(model)
    if told is None:
        return []
    figures = pd.DataFrame.from_dict(told["policies"], orient="index").astype(float)
    prompts = "".join(f"<li>{escape(prompt)}</li>" for prompt in told["prompts"])
    rows = _table(figures, draws_world(model), "Recorded figures per policy")
    return [
        f'<details class="fkv-small" open><summary>Recorded: {len(figures)} policies, {told["chunks"]} chunks, '
        f"seeds {', '.join(map(str, told['seeds']))}, without speeds</summary>{rows}"
        f"<p>Prompts:</p><ul>{prompts}</ul><p>Recorded by <code>{escape(told['command'])}</code> on "
        f"{escape(told['device'])}, {told['date']}. Few streams: small differences are chance.</p></details>"
    ]


def _earlier(finished: Sequence[str]) -> str:
    """Comparisons before the one that is shown, with a heading; nothing where there are none."""
    tables = "".join(finished)
    return (
        f'<section class="fkv-earlier"><h3 aria-level="2">Earlier comparisons</h3>{tables}</section>' if tables else ""
    )


def _complete(step: Progress) -> int:
    """How many streams are complete and measured."""
    return sum("adherence" in record for record in step.records)


def _bar(step: Progress, total: int) -> str:
    return (
        f'<div class="fkv-progress" data-state="{step.state}">'
        f'<progress max="{total}" value="{step.done}" aria-label="Chunks done"></progress>'
        f'<p role="status">{escape(step.text)}</p></div>'
    )


def _table(figures: pd.DataFrame | None, draws_world: bool, label: str = "Figures per policy") -> str:
    """The figures as an HTML table of that name; a dash stands for what is not known yet, or does not apply."""
    columns = {
        name: title
        for name, (title, _) in COLUMNS.items()
        if (draws_world or name not in ("adherence", *WORDS)) and (figures is None or name in figures)
    }
    head = "".join(f'<th scope="col"><button type="button">{title}</button></th>' for title in columns.values())
    policies = {} if figures is None else figures.to_dict("index")
    body = "".join(
        _row(policy, {name: _cell(name, row) for name in columns}, row, first=not i)
        for i, (policy, row) in enumerate(policies.items())
    )
    empty = f'<tr class="fkv-none"><td colspan="{len(columns) + 1}">No figures yet.</td></tr>'
    return (
        f'<div class="fkv-table" role="region" aria-label="{label}" tabindex="0"><table>'
        f'<thead><tr><th scope="col"><button type="button">policy</button></th>{head}</tr></thead>'
        f"<tbody>{body or empty}</tbody></table></div>"
    )


def _row(policy: str, cells: Mapping[str, str], row: Mapping[str, float], first: bool) -> str:
    """A row; `data-value` is what the script sorts by."""
    written = "".join(
        f'<td data-value="{"" if pd.isna(row[name]) else float(row[name])}">{cell}</td>' for name, cell in cells.items()
    )
    return f'<tr{" data-first" if first else ""}><th scope="row">{escape(policy)}</th>{written}</tr>'


def _cell(name: str, row: Mapping[str, float]) -> str:
    value = row[name]
    if pd.isna(value):
        return "–"
    if name == "ratio_denoise" and row["ratio_denoise_low"] < row["ratio_denoise_high"]:
        return _ratio(value, row["ratio_denoise_low"], row["ratio_denoise_high"])
    if name == "psnr_to_reference" and value == EQUAL_DB:
        return "equal"
    return COLUMNS[name][1].format(value / 1e6 if name == "kv_bytes_peak" else value)


def _ratio(value: float, low: float, high: float) -> str:
    """A ratio with the middle half of its values; within noise where 1 lies in it."""
    if low <= 1 <= high:
        return f"within noise ({low:.2f}–{high:.2f} ×)"
    return f"{value:.2f} × ({low:.2f}–{high:.2f})"


def _pareto(figures: pd.DataFrame) -> Any:
    """The plot without a background, so that the page's style gives it the colours of its theme."""
    from fkv.analysis.figures import Pareto

    clear = "rgba(0,0,0,0)"
    return gr.Plot(Pareto(figures).plotly().update_layout(paper_bgcolor=clear, plot_bgcolor=clear), visible=True)
