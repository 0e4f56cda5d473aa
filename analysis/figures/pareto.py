"""Policies by speed and quality: which are beaten by no other in both."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import STATIC, Palette
from .view import View

SPEED = "denoise FPS, median over chunks"
SPREAD = ("fps_denoise_low", "fps_denoise_high")
# Share of the greatest speed within which labels would overlap.
NEAR = 0.15
# Diameter of the largest marker in Plotly's pixels; in a file, in points, two thirds of it.
LARGEST = 36
ADHERENCE_RANGE = (0, 1.16)
ADHERENCE_TICKS = (0, 0.25, 0.5, 0.75, 1)


class Pareto(View):
    """Speed across, quality up, marker area for peak KV bytes; a line joins the front.

    The quality is the adherence to the prompt where there is any, else the PSNR to the reference run, which the
    reference itself does not have. The table has one row per policy with a quality: policy, fps_denoise, quality,
    kv_bytes_peak (bytes), and front, whether no other policy beats it in both.

    Args:
        rows: Index policy; columns fps_denoise, kv_bytes_peak, adherence, psnr_to_reference; where they have
            fps_denoise_low and fps_denoise_high, bars show the middle half of the speeds over chunks.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self._adherence = bool(rows["adherence"].notna().any())
        quality = "adherence" if self._adherence else "psnr_to_reference"
        self._axis = "adherence to the prompt" if self._adherence else "PSNR to the reference, dB"
        table = rows.assign(quality=rows[quality]).dropna(subset="quality")
        table = table[["fps_denoise", "quality", "kv_bytes_peak", *(end for end in SPREAD if end in table)]]
        table = table.astype(float).reset_index()
        table = table.assign(front=_front(table))
        subtitle = "filled: unbeaten in both · area: peak KV"
        if SPREAD[0] in table:
            subtitle += " · bars: middle half of the chunks"
        super().__init__("pareto", "Speed against quality", subtitle, table, height=420, size=(6.4, 4.4))
        self._front = table[table["front"]].sort_values("fps_denoise")

    def _plotly(self, colours: Palette) -> go.Figure:
        table = self.table
        figure = go.Figure()
        figure.add_scatter(
            x=self._front["fps_denoise"],
            y=self._front["quality"],
            mode="lines",
            line={"color": STATIC, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=table["fps_denoise"],
            y=table["quality"],
            mode="markers+text",
            text=table["policy"],
            cliponaxis=False,
            textposition=["bottom center" if below else "top center" for below in _below(table)],
            textfont={"size": 14},
            customdata=table["kv_bytes_peak"] / 1e6,
            error_x=self._spread(colours),
            hovertemplate="%{text}<br>%{x:.1f} FPS of denoising, %{customdata:.2f} MB KV<br>"
            + self._axis
            + " %{y}<extra></extra>",
            marker={
                "size": table["kv_bytes_peak"],
                "sizemode": "area",
                "sizemin": 4,
                "sizeref": table["kv_bytes_peak"].max() / LARGEST**2,
                "color": [STATIC if front else "rgba(0,0,0,0)" for front in table["front"]],
                "opacity": 0.85,
                "line": {"color": STATIC, "width": 2},
            },
        )
        figure.update_xaxes(title=SPEED, rangemode="tozero", gridcolor=colours.grid)
        figure.update_yaxes(title=self._axis)
        if self._adherence:
            figure.update_yaxes(range=ADHERENCE_RANGE, tickformat=".0%", tickvals=ADHERENCE_TICKS)
        return figure.update_layout(showlegend=False)

    def _spread(self, colours: Palette) -> dict[str, Any] | None:
        """Plotly's bars around the medians; None where the spread of the speeds is not known."""
        table = self.table
        if SPREAD[0] not in table:
            return None
        low, high = (abs(table[end] - table["fps_denoise"]) for end in SPREAD)
        return {"type": "data", "array": high, "arrayminus": low, "color": colours.soft, "thickness": 1.2, "width": 4}

    def _draw(self, figure: Figure, colours: Palette) -> None:
        table = self.table
        ax = figure.subplots()
        sns.lineplot(self._front, x="fps_denoise", y="quality", color=STATIC, lw=1.2, ls=":", ax=ax)
        area = (LARGEST * 2 / 3) ** 2 * table["kv_bytes_peak"] / table["kv_bytes_peak"].max()
        for row, size, below in zip(table.itertuples(), area, _below(table), strict=True):
            at = (row.fps_denoise, row.quality)
            fill = STATIC if row.front else "none"
            ax.scatter(*at, size, fill, edgecolors=STATIC, alpha=0.85, clip_on=False)
            if SPREAD[0] in table:
                ax.hlines(row.quality, row.fps_denoise_low, row.fps_denoise_high, colors=colours.soft, lw=1.2)
            gap = size**0.5 / 2 + 4
            ax.annotate(
                row.policy,
                at,
                (0, -gap if below else gap),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                color=colours.ink,
            )
        ax.set(xlabel=SPEED, ylabel=self._axis, xlim=(0, table["fps_denoise"].max() * 1.15))
        ax.grid(color=colours.grid, lw=0.6)
        if self._adherence:
            ax.set(ylim=ADHERENCE_RANGE, yticks=ADHERENCE_TICKS)
            ax.yaxis.set_major_formatter(PercentFormatter(1))


def _front(table: pd.DataFrame) -> list[bool]:
    """Tell for each policy whether no other one is at least as good in speed and quality."""
    points = list(zip(table["fps_denoise"], table["quality"], strict=True))
    return [
        not any(
            fps >= own_fps and quality >= own_quality and (fps, quality) != (own_fps, own_quality)
            for fps, quality in points
        )
        for own_fps, own_quality in points
    ]


def _below(table: pd.DataFrame) -> list[bool]:
    """Tell which labels go below their marker: among neighbours in speed every other one, the worse of two first."""
    order = table.sort_values(["fps_denoise", "quality"])
    near = order["fps_denoise"].diff() < NEAR * order["fps_denoise"].max()
    quality = order["quality"]
    below: list[bool] = []
    for i, close in enumerate(near):
        if close and not near.iloc[i - 1]:
            below[-1] = quality.iloc[i - 1] < quality.iloc[i]
        below.append(close and not below[-1])
    return pd.Series(below, order.index).reindex(table.index).tolist()
