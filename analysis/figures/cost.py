"""What a run cost: KV memory and seconds per stage, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from fkv.stream import Chunk

from .style import ANCHOR, CURRENT, SINK, STATIC, Theme, canvas, drawing, finish, pattern

STAGES = ("text", "rebuild", "denoise", "context", "decode")
STAGE_COLOURS = dict(zip(STAGES, ("#8d99a8", SINK, STATIC, CURRENT, ANCHOR)))
STAGE_HATCHES = dict(zip(STAGES, ("..", "xx", "", "\\\\\\", "||")))
PLOTLY_STAGE_HATCHES = dict(zip(STAGES, (".", "x", "", "\\", "|")))
TITLE = "What each chunk cost"


def cost_table(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """One row per chunk: seconds per stage, bytes of K and V held while it attended, frames it attended to."""
    rows = [
        {"chunk": c.index, "policy": c.policy, "kv_bytes": c.kv_bytes, "context_frames": c.context_frames}
        | {f"{stage}_s": getattr(c.timings, stage) for stage in STAGES}
        for c in chunks
    ]
    return pd.DataFrame(rows)


def _subtitle(table: pd.DataFrame) -> str:
    policy = ", then ".join(table.policy.unique())
    return (
        f"{policy}  ·  at most {table.kv_bytes.max() / 1e6:.2f} MB of K and V held  ·  seconds as measured in this run"
    )


def _stages(table: pd.DataFrame) -> list[str]:
    return [stage for stage in STAGES if table[f"{stage}_s"].any()]


def chunk_cost(chunks: Sequence[Chunk], theme: Theme = "light") -> go.Figure:
    """KV memory on the left, seconds per stage on the right."""
    table = cost_table(chunks)
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    figure.add_scatter(
        x=table.chunk,
        y=table.kv_bytes / 1e6,
        mode="lines+markers",
        name="K and V held, MB",
        row=1,
        col=1,
        line={"color": STATIC, "width": 2.4, "shape": "hv"},
        customdata=table.context_frames,
        hovertemplate="chunk %{x}: %{y:.2f} MB<br>attends to %{customdata} latent frames<extra></extra>",
    )
    for stage in _stages(table):
        figure.add_bar(
            x=table.chunk,
            y=table[f"{stage}_s"],
            name=stage,
            row=1,
            col=2,
            hovertemplate=f"chunk %{{x}}: {stage} %{{y:.3f}} s<extra></extra>",
            marker={
                "color": STAGE_COLOURS[stage],
                "line": {"width": 0},
                "pattern": pattern(PLOTLY_STAGE_HATCHES[stage], theme),
            },
        )
    figure.update_xaxes(title="chunk", showgrid=False)
    figure.update_yaxes(title="KV memory, MB", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="seconds", rangemode="tozero", row=1, col=2)
    figure.update_layout(barmode="stack", bargap=0.15, legend={"y": -0.22})
    return finish(figure, TITLE, _subtitle(table), theme, 400)


def draw_chunk_cost(chunks: Sequence[Chunk], theme: Theme = "light") -> Figure:
    """The same as `chunk_cost`, for a file."""
    table = cost_table(chunks)
    with drawing(theme) as colours:
        figure = canvas(TITLE, _subtitle(table), 9.2, 3.9, colours)
        memory, seconds = figure.subplots(1, 2)
        memory.step(table.chunk, table.kv_bytes / 1e6, where="post", color=STATIC, lw=2)
        memory.plot(table.chunk, table.kv_bytes / 1e6, "o", color=STATIC, ms=4, label="K and V held, MB")
        memory.set(xlabel="chunk", ylabel="KV memory, MB", ylim=(0, None))
        bottom = np.zeros(len(table))
        for stage in _stages(table):
            values = table[f"{stage}_s"].to_numpy()
            seconds.bar(
                table.chunk,
                values,
                bottom=bottom,
                color=STAGE_COLOURS[stage],
                hatch=STAGE_HATCHES[stage],
                linewidth=0,
                label=stage,
            )
            bottom += values
        seconds.set(xlabel="chunk", ylabel="seconds")
        legends = [ax.get_legend_handles_labels() for ax in (memory, seconds)]
        figure.legend(*(one + other for one, other in zip(*legends)), loc="outside lower left", ncols=6)
    return figure
