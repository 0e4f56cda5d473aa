"""The effect of operations on heads on the video, chunk by chunk, and on memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from fkv.analysis.surgery import Effect

from .style import LINES, MARKERS, SERIES, Look, Palette, legend_below
from .view import View

QUALITY = "PSNR to the untouched run, dB"
MEMORY = "change in KV memory, MB"
EQUAL = "equal frames"


class SurgeryEffects(View):
    """Left: PSNR to the untouched run over chunks, equal frames at the top. Right: change in KV bytes at the end.

    The table has one row per operation and chunk: operation, chunk, psnr (dB, inf for equal frames), kv_bytes,
    kv_change (bytes).

    Args:
        effects: The effects of operations on the same run.
        subtitle: Line below the heading, such as model, policy and prompt.

    Raises:
        ValueError: There are no effects.
    """

    def __init__(self, effects: Sequence[Effect], subtitle: str = "") -> None:
        if not effects:
            raise ValueError("there is no operation to draw")
        table = surgery_table(effects)
        finite = table.psnr[np.isfinite(table.psnr)]
        self._top = 10 * (finite.max() // 10 + 2) if len(finite) else 60
        self._change = table.groupby("operation", sort=False).kv_change.last() / 1e6
        height = max(3.8, 2.6 + 0.3 * len(self._change))
        title = "What changes when heads are operated on"
        super().__init__("surgery", title, subtitle, table, height=int(100 * height), size=(10, height))

    def _series(self) -> Iterator[tuple[str, pd.DataFrame, str, str, str]]:
        """Name, rows, colour, dash and symbol of each operation."""
        dashes = tuple(LINES)
        symbols = tuple(MARKERS)
        for i, (name, rows) in enumerate(self.table.groupby("operation", sort=False)):
            shown = rows.assign(psnr=rows.psnr.clip(upper=self._top))
            yield name, shown, SERIES[i % len(SERIES)], dashes[i % len(dashes)], symbols[i % len(symbols)]

    def _plotly(self, colours: Palette) -> go.Figure:
        figure = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.16)
        for name, rows, colour, dash, symbol in self._series():
            figure.add_scatter(
                x=rows.chunk,
                y=rows.psnr,
                name=name,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 8},
                hovertemplate=f"{name}<br>chunk %{{x}}: %{{y:.1f}} dB<extra></extra>",
                row=1,
                col=1,
            )
            change = self._change[name]
            bar = {"orientation": "h", "showlegend": False, "marker": {"color": colour, "line": {"width": 0}}}
            figure.add_bar(x=[change], y=[name], text=[f"{change:+.3f}"], hoverinfo="skip", row=1, col=2, **bar)
        line = {"color": colours.soft, "width": 1, "dash": "dot"}
        figure.add_hline(
            y=self._top, line=line, row=1, col=1, annotation_text=EQUAL, annotation_position="bottom right"
        )
        figure.update_xaxes(title="chunk", dtick=1, showgrid=False, row=1, col=1)
        figure.update_yaxes(title=QUALITY, range=[0, self._top + 4], row=1, col=1)
        figure.update_xaxes(title=MEMORY, zeroline=True, zerolinecolor=colours.soft, row=1, col=2)
        return figure.update_yaxes(autorange="reversed", row=1, col=2)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        for name, rows, colour, dash, symbol in self._series():
            line = {"color": colour, "ls": LINES[dash], "marker": MARKERS[symbol], "ms": 5, "lw": 1.8}
            left.plot(rows.chunk, rows.psnr, label=name, **line)
        left.axhline(self._top, color=colours.soft, lw=1, ls=":")
        place: Look = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "va": "top"}
        left.annotate(EQUAL, (1, self._top), (0, -3), size=8, color=colours.soft, **place)
        left.set(xlabel="chunk", ylabel=QUALITY, ylim=(0, self._top + 4), xticks=sorted(set(self.table.chunk)))
        self._draw_memory(right, colours)
        legend_below(figure, left, columns=3)

    def _draw_memory(self, ax: Axes, colours: Palette) -> None:
        change = self._change
        hues = {name: colour for name, _, colour, *_ in self._series()}
        names = list(hues)
        sns.barplot(x=change.to_numpy(), y=names, hue=names, palette=hues, legend=False, saturation=1, ax=ax)
        ax.axvline(0, color=colours.soft, lw=1)
        for row, value in enumerate(change):
            side, gap = ("left", 4) if value >= 0 else ("right", -4)
            place: Look = {"textcoords": "offset points", "ha": side, "va": "center"}
            ax.annotate(f"{value:+.3f}", (value, row), (gap, 0), size=8, **place)
        reach = max(change.abs().max(), 1e-6) * 1.5
        ax.set(xlabel=MEMORY, xlim=(-reach * (change.min() < 0), reach * (1 if change.max() > 0 else 0.1)))
        ax.tick_params(axis="y", length=0)
        sns.despine(ax=ax, left=True)


def surgery_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """Tabulate effects: one row per operation and chunk with psnr (inf for equal frames), kv_bytes and kv_change."""
    rows = [
        (effect.label, chunk, np.inf if psnr is None else psnr, effect.kv_bytes, effect.kv_change)
        for effect in effects
        for chunk, psnr in enumerate(effect.psnr, 1)
    ]
    return pd.DataFrame(rows, columns=["operation", "chunk", "psnr", "kv_bytes", "kv_change"])
