"""Policies by speed and quality: which of them no other one beats in both."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import STATIC, Theme, canvas, drawing, finish, palette

TITLE, ACROSS = "Speed against quality", "denoise FPS, median over chunks"
NEAR = 0.15
"""Share of the greatest speed within which labels would overlap."""
LARGEST = 36
"""Diameter of the largest marker in Plotly's pixels; in a file, in points, two thirds of it."""


def pareto_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per policy with a quality: policy, fps_denoise, quality, kv_bytes_peak, and whether it is on the front.

    rows : index policy, columns fps_denoise, kv_bytes_peak, adherence, psnr_to_reference. The quality is the adherence where there
    is any, else the PSNR, which the reference itself does not have.
    """
    table = rows.assign(quality=rows[_quality(rows)]).dropna(subset="quality")
    table = table[["fps_denoise", "quality", "kv_bytes_peak"]].astype(float).reset_index()
    pairs = [(row.fps_denoise, row.quality) for row in table.itertuples()]
    return table.assign(
        front=[
            not any(a >= fps and b >= quality and (a, b) != (fps, quality) for a, b in pairs) for fps, quality in pairs
        ]
    )


def _quality(rows: pd.DataFrame) -> str:
    return "adherence" if rows["adherence"].notna().any() else "psnr_to_reference"


def _words(rows: pd.DataFrame) -> tuple[str, str]:
    """What the vertical axis says, and the line below the title."""
    axis = "adherence to the prompt" if _quality(rows) == "adherence" else "PSNR to the reference, dB"
    return axis, "filled: unbeaten in both · area: peak KV"


def _below(table: pd.DataFrame) -> list[bool]:
    """Which labels go below their marker: among policies about as fast as the one before, every other; of the first two the worse."""
    order = table.sort_values(["fps_denoise", "quality"])
    near, quality = order["fps_denoise"].diff() < NEAR * order["fps_denoise"].max(), order["quality"]
    below: list[bool] = []
    for i, close in enumerate(near):
        if close and not near.iloc[i - 1]:
            below[-1] = quality.iloc[i - 1] < quality.iloc[i]
        below.append(close and not below[-1])
    return pd.Series(below, order.index).reindex(table.index).tolist()


def pareto(rows: pd.DataFrame, theme: Theme = "light") -> go.Figure:
    """fps_denoise across, quality up, marker area for peak KV bytes; a line joins the front."""
    table, (axis, subtitle), colours = pareto_table(rows), _words(rows), palette(theme)
    front = table[table["front"]].sort_values("fps_denoise")
    figure = go.Figure()
    figure.add_scatter(
        x=front["fps_denoise"],
        y=front["quality"],
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
        hovertemplate="%{text}<br>%{x:.1f} FPS of denoising, %{customdata:.2f} MB KV<br>"
        + axis
        + " %{y}<extra></extra>",
        marker={
            "size": table["kv_bytes_peak"],
            "sizemode": "area",
            "sizemin": 4,
            "sizeref": table["kv_bytes_peak"].max() / LARGEST**2,
            "color": [STATIC if on else "rgba(0,0,0,0)" for on in table["front"]],
            "opacity": 0.85,
            "line": {"color": STATIC, "width": 2},
        },
    )
    figure.update_xaxes(title=ACROSS, rangemode="tozero", gridcolor=colours.grid)
    figure.update_yaxes(title=axis, **_up(rows))
    figure.update_layout(showlegend=False)
    return finish(figure, TITLE, subtitle, theme, 420)


def _up(rows: pd.DataFrame) -> dict[str, Any]:
    return (
        {"range": (0, 1.16), "tickformat": ".0%", "tickvals": (0, 0.25, 0.5, 0.75, 1)}
        if _quality(rows) == "adherence"
        else {}
    )


def draw_pareto(rows: pd.DataFrame, theme: Theme = "light") -> Figure:
    """The same as `pareto`, for a file."""
    table, (axis, subtitle) = pareto_table(rows), _words(rows)
    front = table[table["front"]].sort_values("fps_denoise")
    with drawing(theme) as colours:
        figure = canvas(TITLE, subtitle, 6.4, 4.4, colours)
        axes = figure.subplots()
        sns.lineplot(front, x="fps_denoise", y="quality", color=STATIC, lw=1.2, ls=":", ax=axes)
        area = (LARGEST * 2 / 3) ** 2 * table["kv_bytes_peak"] / table["kv_bytes_peak"].max()
        for row, size, below in zip(table.itertuples(), area, _below(table)):
            axes.scatter(
                row.fps_denoise,
                row.quality,
                size,
                STATIC if row.front else "none",
                edgecolors=STATIC,
                alpha=0.85,
                clip_on=False,
            )
            offset = (size**0.5 / 2 + 4) * (-1 if below else 1)
            axes.annotate(
                row.policy,
                (row.fps_denoise, row.quality),
                (0, offset),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                color=colours.ink,
            )
        axes.set(xlabel=ACROSS, ylabel=axis, xlim=(0, table["fps_denoise"].max() * 1.15))
        axes.grid(color=colours.grid, lw=0.6)
        if _quality(rows) == "adherence":
            axes.set(ylim=(0, 1.16), yticks=_up(rows)["tickvals"])
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure
