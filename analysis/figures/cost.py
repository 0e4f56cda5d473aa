"""The cost of a run: KV memory and seconds per stage, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from fkv.stream import Chunk

from .style import ANCHOR, CURRENT, HATCHES, SINK, STATIC, Palette, legend_below, pattern
from .view import View

STAGE_COLOURS = {"text": "#8d99a8", "rebuild": SINK, "denoise": STATIC, "context": CURRENT, "decode": ANCHOR}
STAGE_PATTERNS = {"text": ".", "rebuild": "x", "denoise": "", "context": "\\", "decode": "|"}


class ChunkCost(View):
    """KV memory on the left, seconds per stage on the right.

    Args:
        chunks: The chunks of a run in order.

    Raises:
        ValueError: There are no chunks.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        if not chunks:
            raise ValueError("there is no chunk to draw")
        table = cost_table(chunks)
        policy = ", then ".join(table.policy.unique())
        peak = table.kv_bytes.max() / 1e6
        subtitle = f"{policy}  ·  at most {peak:.2f} MB of K and V cached  ·  seconds as measured in this run"
        super().__init__("cost", "What each chunk cost", subtitle, table, height=400, size=(9.2, 3.9))
        stages = table[[f"{stage}_s" for stage in STAGE_COLOURS]].set_axis(list(STAGE_COLOURS), axis=1)
        self._seconds = stages.loc[:, stages.any()]

    def _plotly(self, colours: Palette) -> go.Figure:
        table = self.table
        figure = make_subplots(1, 2, horizontal_spacing=0.1)
        figure.add_scatter(
            x=table.chunk,
            y=table.kv_bytes / 1e6,
            mode="lines+markers",
            name="K and V cached, MB",
            row=1,
            col=1,
            line={"color": STATIC, "width": 2.4, "shape": "hv"},
            customdata=table.context_frames,
            hovertemplate="chunk %{x}: %{y:.2f} MB<br>attends to %{customdata} latent frames<extra></extra>",
        )
        for stage, seconds in self._seconds.items():
            figure.add_bar(
                x=table.chunk,
                y=seconds,
                name=stage,
                row=1,
                col=2,
                hovertemplate=f"chunk %{{x}}: {stage} %{{y:.3f}} s<extra></extra>",
                marker={
                    "color": STAGE_COLOURS[stage],
                    "line": {"width": 0},
                    "pattern": pattern(STAGE_PATTERNS[stage], colours),
                },
            )
        figure.update_xaxes(title="chunk", showgrid=False)
        figure.update_yaxes(title="KV memory, MB", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title="seconds", rangemode="tozero", row=1, col=2)
        return figure.update_layout(barmode="stack", bargap=0.15, legend={"y": -0.22})

    def _draw(self, figure: Figure, colours: Palette) -> None:
        table = self.table
        memory, seconds = figure.subplots(1, 2)
        memory.step(table.chunk, table.kv_bytes / 1e6, where="post", color=STATIC, lw=2)
        memory.plot(table.chunk, table.kv_bytes / 1e6, "o", color=STATIC, ms=4, label="K and V cached, MB")
        memory.set(xlabel="chunk", ylabel="KV memory, MB", ylim=(0, None))
        bottoms = self._seconds.cumsum(axis=1).shift(axis=1, fill_value=0)
        for stage, values in self._seconds.items():
            hatch = HATCHES[STAGE_PATTERNS[stage]]
            look = {"color": STAGE_COLOURS[stage], "hatch": hatch, "linewidth": 0}
            seconds.bar(table.chunk, values, bottom=bottoms[stage], label=stage, **look)
        seconds.set(xlabel="chunk", ylabel="seconds")
        for ax in (memory, seconds):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(figure, memory, seconds, columns=6)


def cost_table(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """Tabulate chunks: one row each with bytes of K and V, attended latent frames, and seconds per stage."""
    rows = [
        {"chunk": chunk.index + 1, "policy": chunk.policy, "kv_bytes": chunk.kv_bytes}
        | {"context_frames": chunk.context_frames}
        | {f"{stage}_s": getattr(chunk.timings, stage) for stage in STAGE_COLOURS}
        for chunk in chunks
    ]
    return pd.DataFrame(rows)
