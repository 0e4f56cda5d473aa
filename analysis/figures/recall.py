"""Recall against the bytes of K and V that it took, one point a policy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import DYNAMIC, STATIC, Palette
from .view import View

BYTES = "peak KV, MB"
RECALL = "recall"
RANGE = (0.0, 1.08)
TICKS = (0, 0.25, 0.5, 0.75, 1)
ROW = 0.19  # inches per name
PLOT = 3.2  # inches of the plot, where there are few names
COLUMN = 1.5  # where the names stand, as a multiple of the greatest bytes
MARGIN = 190  # pixels for the names


class Recall(View):
    """Peak KV bytes across, recall up with its 95 % interval over prompts; a dotted line is chance.

    Names stand in a column at the right in the order of recall, each joined to its point. The table has one row per
    policy: policy, kv_bytes_peak (bytes), recall, low, high, chance.

    Args:
        rows: One row per policy with those columns, as `fkv.analysis.recall.summary` makes them by policy.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        table = rows[["policy", "kv_bytes_peak", "recall", "low", "high", "chance"]].dropna()
        table = table.sort_values("recall", ignore_index=True)
        subtitle = "bars: 95 % interval over prompts · dotted: chance"
        plot = max(PLOT, ROW * len(table))
        inches = plot + 1.2
        title = "What comes back, by what was cached"
        super().__init__("recall", title, subtitle, table, round(96 * inches), (8.4, inches))
        self._megabytes = table["kv_bytes_peak"] / 1e6
        self._column = COLUMN * self._megabytes.max()
        self._heights = spread(table["recall"].tolist(), ROW / plot * (RANGE[1] - RANGE[0]), RANGE[1])

    def _plotly(self, colours: Palette) -> go.Figure:
        table = self.table
        figure = go.Figure()
        for megabytes, recall, height in zip(self._megabytes, table["recall"], self._heights, strict=True):
            line = {"color": colours.soft, "width": 0.5}
            figure.add_scatter(
                x=[megabytes, self._column], y=[recall, height], mode="lines", line=line, hoverinfo="skip"
            )
        figure.add_scatter(
            x=[self._column] * len(table),
            y=self._heights,
            mode="text",
            text=table["policy"],
            textposition="middle right",
            textfont={"size": 12},
            cliponaxis=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=self._megabytes,
            y=table["recall"],
            mode="markers",
            text=table["policy"],
            cliponaxis=False,
            marker={"size": 9, "color": STATIC},
            error_y={
                "array": table["high"] - table["recall"],
                "arrayminus": table["recall"] - table["low"],
                "thickness": 1.2,
                "color": STATIC,
            },
            hovertemplate="%{text}<br>%{x:.2f} MB KV<br>recall %{y:.0%}<extra></extra>",
        )
        figure.add_hline(y=table["chance"].mean(), line={"color": DYNAMIC, "dash": "dot", "width": 1.5})
        figure.update_xaxes(title=BYTES, type="log", gridcolor=colours.grid)
        figure.update_yaxes(title=RECALL, range=RANGE, tickformat=".0%", tickvals=TICKS)
        return figure.update_layout(showlegend=False, margin={"r": MARGIN})

    def _draw(self, figure: Figure, colours: Palette) -> None:
        table = self.table
        ax = figure.subplots()
        ax.axhline(table["chance"].mean(), color=DYNAMIC, ls=":", lw=1.2)
        for megabytes, row, height in zip(self._megabytes, table.itertuples(), self._heights, strict=True):
            ax.plot([megabytes, self._column], [row.recall, height], color=colours.soft, lw=0.4, clip_on=False)
            ax.annotate(
                row.policy,
                (self._column, height),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                color=colours.ink,
                annotation_clip=False,
            )
        errors = [table["recall"] - table["low"], table["high"] - table["recall"]]
        ax.errorbar(self._megabytes, table["recall"], errors, fmt="none", ecolor=STATIC, elinewidth=1, capsize=2)
        sns.scatterplot(x=self._megabytes, y=table["recall"], color=STATIC, s=42, ax=ax, clip_on=False, zorder=3)
        ax.set(xlabel=BYTES, ylabel=RECALL, xscale="log", ylim=RANGE, yticks=TICKS)
        ax.set_xlim(right=self._column)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(color=colours.grid, lw=0.6)


def spread(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Move heights apart until neighbours differ by `gap`: up where they must, and down again from the top.

    Args:
        heights: From the lowest to the highest.
        gap: The least distance between neighbours.
        top: The greatest height.
    """
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for i in reversed(range(len(moved))):
        limit = top if i == len(moved) - 1 else moved[i + 1] - gap
        moved[i] = min(moved[i], limit)
    return moved
