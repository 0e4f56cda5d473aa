"""Recall against the bytes of K and V that it took, one point a policy."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import DYNAMIC, STATIC, Palette
from .view import View

BYTES = "peak KV, MB"
RECALL = "recall"
RANGE = (0, 1.08)
TICKS = (0, 0.25, 0.5, 0.75, 1)


class Recall(View):
    """Peak KV bytes across, recall up with its 95 % interval over prompts; a dotted line is chance.

    The table has one row per policy: policy, kv_bytes_peak (bytes), recall, low, high, chance.

    Args:
        rows: One row per policy with those columns, as `fkv.analysis.recall.summary` makes them by policy.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        table = rows[["policy", "kv_bytes_peak", "recall", "low", "high", "chance"]].dropna().reset_index(drop=True)
        subtitle = "bars: 95 % interval over prompts · dotted: chance"
        super().__init__("recall", "What comes back, by what was cached", subtitle, table, height=440, size=(6.8, 4.4))
        self._megabytes = table["kv_bytes_peak"] / 1e6

    def _plotly(self, colours: Palette) -> go.Figure:
        table = self.table
        figure = go.Figure()
        figure.add_scatter(
            x=self._megabytes,
            y=table["recall"],
            mode="markers+text",
            text=table["policy"],
            textposition="top center",
            textfont={"size": 12},
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
        return figure.update_layout(showlegend=False)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        table = self.table
        ax = figure.subplots()
        ax.axhline(table["chance"].mean(), color=DYNAMIC, ls=":", lw=1.2)
        errors = [table["recall"] - table["low"], table["high"] - table["recall"]]
        ax.errorbar(self._megabytes, table["recall"], errors, fmt="none", ecolor=STATIC, elinewidth=1, capsize=2)
        sns.scatterplot(x=self._megabytes, y=table["recall"], color=STATIC, s=42, ax=ax, clip_on=False)
        for megabytes, row in zip(self._megabytes, table.itertuples(), strict=True):
            ax.annotate(
                row.policy,
                (megabytes, row.recall),
                (5, 5),
                textcoords="offset points",
                fontsize="small",
                color=colours.ink,
            )
        ax.set(xlabel=BYTES, ylabel=RECALL, xscale="log", ylim=RANGE, yticks=TICKS)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(color=colours.grid, lw=0.6)
