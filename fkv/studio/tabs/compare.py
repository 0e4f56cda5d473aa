"""The Compare tab: which policies on which prompts and seeds, how far it is, what came out. The work is `comparison`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from html import escape
from typing import Any

import gradio as gr
import pandas as pd

from fkv.analysis.evaluate import EQUAL_DB, draws_world
from fkv.analysis.figures import Pareto
from fkv.models.base import VideoModel
from fkv.policies import POLICIES
from fkv.studio.errors import sentence
from fkv.studio.live.comparison import Play, Progress, compare, held_out_prompts
from fkv.studio.live.comparison_figures import report, table
from fkv.studio.live.comparison_plan import ComparisonPlan
from fkv.studio.live.sessions import Registry
from fkv.studio.media import filmstrip
from fkv.studio.media.artifacts import Shelf
from fkv.world.oracle import WORDS

CHOSEN = ["full", "forcing-kv", "sliding-window"]
CHUNKS = 7
SCALES = {
    "fps_denoise": ("denoise FPS", "{:.1f}"),
    "fps_end_to_end": ("end-to-end FPS", "{:.1f}"),
    "ratio_denoise": ("speed vs first", "{:.2f} ×"),
    "kv_bytes_peak": ("peak KV, MB", "{:.2f}"),
    "psnr_to_reference": ("PSNR vs first, dB", "{:.1f}"),
    "discontinuity": ("discontinuity", "{:.2f}"),
    "adherence": ("adherence", "{:.0%}"),
    **{word: (word, "{:.0%}") for word in WORDS},
}
"""Columns of the table: what they are called there and how their numbers are written."""
NOTE = f"""<details class="fkv-small"><summary>What the figures count</summary><p>
<b>First</b>: the first policy of the list, which the others are measured against. <b>Denoise FPS</b>: video frames / seconds of denoising,
context pass and cache rebuilds. <b>End-to-end FPS</b>: video frames / seconds of all stages, decoding included. <b>Speed vs first</b>:
seconds that the first policy took / seconds that this one took, without text and decoding. All three are medians over chunks; streams of
one prompt and seed take turns on this machine, after a chunk each that is thrown away. <b>Peak KV</b>: the most bytes of keys and values
held while a chunk attended, 1 MB = 1,000,000 bytes. <b>PSNR vs first</b>: of all frames, mean over streams; a hybrid cache may paint
another, equally good film from the same noise. <b>Discontinuity</b>: how much the greatest movements stand out; 1 moves evenly across
chunk borders. <b>Adherence</b>: the share of {", ".join(WORDS)} that an oracle reads back from the last five seconds, mean over the
prompts that name them all; to tell a motion it needs about two seconds.</p></details>"""
READY = Progress("idle", "Every policy gets the same noise; each prompt and seed is one stream per policy.")


def visitor(request: gr.Request) -> str:
    """Under which name the registry keeps a visitor's comparison, beside their stream."""
    return f"{request.session_hash} compares"


def compare_tab(model: VideoModel, registry: Registry, play: Play) -> None:
    """Build the tab inside the page that is being built."""
    shelf, world = Shelf(), draws_world(model)
    device = model.device  # asked for here, since on ZeroGPU only the main thread sees the GPU by name
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
            chunks = gr.Number(CHUNKS, label="Chunks per stream", precision=0, info="2 to 60", scale=1, min_width=150)
            seeds = gr.Textbox("0", label="Seeds", info="such as 0, 1", max_lines=1, scale=1, min_width=150)
        with gr.Row(elem_id="fkv-compare-prompts"):
            prompts = gr.Textbox(
                "\n".join(held_out_prompts(model)),
                label="Prompts, one a line",
                lines=3,
                max_lines=8,
                scale=6,
                min_width=320,
            )
            with gr.Column(scale=1, min_width=150):
                go = gr.Button("Compare", variant="primary", elem_id="fkv-compare-go")
                cancel = gr.Button("Cancel", interactive=False, elem_id="fkv-compare-cancel")
        bar = gr.HTML(_bar(READY, 1), apply_default_css=False)
        rows = gr.HTML(_table(None, world), apply_default_css=False)
        films = gr.HTML("", apply_default_css=False, elem_id="fkv-films")
        plot = gr.Plot(visible=False, show_label=False, container=False, elem_id="fkv-pareto", elem_classes="fkv-plot")
        with gr.Row(elem_id="fkv-compare-files"):
            files = [
                gr.DownloadButton(f"Download {kind}", interactive=False, size="sm", min_width=90)
                for kind in ("CSV", "PNG", "JSON")
            ]
        gr.HTML(NOTE, apply_default_css=False, elem_classes="fkv")

    def start(
        names: list[str], prompts: str, seeds: str, chunks: float | None, request: gr.Request
    ) -> Iterator[list[Any]]:
        try:
            plan = ComparisonPlan.from_form(names, prompts, seeds, chunks)
        except ValueError as error:
            yield [_bar(Progress("error", sentence(error)), 1), *[gr.skip()] * 6, *_buttons("error")]
            return
        run, measured, strips = registry.begin(visitor(request)), 0, ()
        with closing(compare(model, play, plan, run, registry.queue, registry.limits)) as steps:
            for step in steps:
                found = table(step.records) if step.records else None
                complete = sum("adherence" in each for each in step.records)
                picture = _pareto(found) if complete > measured else gr.skip()
                saved = [gr.DownloadButton(interactive=False)] * 3
                if step.state in ("done", "error") and complete:
                    saved = _save(shelf, found, report(model, plan, step.records, device, run.ended))
                pictures = filmstrip.html(step.strips) if step.strips is not strips else gr.skip()
                measured, strips = complete, step.strips
                yield [_bar(step, plan.total), _table(found, world), pictures, picture, *saved, *_buttons(step.state)]

    def stop(request: gr.Request) -> None:
        if run := registry.of(visitor(request)):
            run.stop()

    quiet, waiting = {"show_progress": "hidden", "api_visibility": "private"}, registry.limits.waiting + 1
    shown = [bar, rows, films, plot, *files, go, cancel]
    go.click(start, [names, prompts, seeds, chunks], shown, concurrency_limit=waiting, **quiet)
    cancel.click(stop, None, None, queue=False, **quiet)


def _buttons(state: str) -> list[Any]:
    running = state in ("queued", "running")
    return [gr.Button(interactive=not running), gr.Button(interactive=running)]


def _bar(step: Progress, total: int) -> str:
    return (
        f'<div class="fkv-progress" data-state="{step.state}">'
        f'<progress max="{total}" value="{step.done}" aria-label="Chunks done"></progress><p role="status">{escape(step.text)}</p></div>'
    )


def _table(found: pd.DataFrame | None, world: bool) -> str:
    """The figures as an HTML table; a dash stands for what is not known yet, or does not apply."""
    columns = {name: words for name, words in SCALES.items() if world or name not in ("adherence", *WORDS)}
    head = "".join(f'<th scope="col">{title}</th>' for title, _ in columns.values())
    body = "".join(
        f'<tr><th scope="row">{escape(policy)}</th>{"".join(f"<td>{_cell(name, row[name])}</td>" for name in columns)}</tr>'
        for policy, row in ({} if found is None else found.to_dict("index")).items()
    )
    empty = f'<tr class="fkv-none"><td colspan="{len(columns) + 1}">No figures yet.</td></tr>'
    return (
        '<div class="fkv-table" role="region" aria-label="Figures per policy" tabindex="0"><table>'
        f'<thead><tr><th scope="col">policy</th>{head}</tr></thead><tbody>{body or empty}</tbody></table></div>'
    )


def _cell(name: str, value: float) -> str:
    if pd.isna(value):
        return "–"
    if name == "psnr_to_reference" and value == EQUAL_DB:
        return "equal"
    return SCALES[name][1].format(value / 1e6 if name == "kv_bytes_peak" else value)


def _pareto(found: pd.DataFrame) -> Any:
    """The plot on no paper, so that the page's style gives it the colours of its theme."""
    clear = "rgba(0,0,0,0)"
    return gr.Plot(Pareto(found).plotly().update_layout(paper_bgcolor=clear, plot_bgcolor=clear), visible=True)


def _save(shelf: Shelf, found: pd.DataFrame, told: dict[str, Any]) -> Sequence[Any]:
    """The figures as files, behind the three buttons."""
    with ExitStack() as places:
        csv, png, js = (
            places.enter_context(shelf.place(f"forcing-kv-comparison.{kind}")) for kind in ("csv", "png", "json")
        )
        found.to_csv(csv)
        Pareto(found).matplotlib().savefig(png, dpi=160)
        js.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return [gr.DownloadButton(value=str(path), interactive=True) for path in (csv, png, js)]
