"""What operations on heads do to the picture, chunk by chunk, and to memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fkv.analysis.surgery import Effect

from .style import ANCHOR, CURRENT, DYNAMIC, SINK, STATIC, Theme, canvas, drawing

TITLE = "What changes when heads are operated on"
COLOURS, LINES, MARKS = (STATIC, DYNAMIC, ANCHOR, SINK, CURRENT), ("-", "--", ":", "-."), "osD^vP"


def surgery_table(effects: Sequence[Effect]) -> pd.DataFrame:
    """One row per operation and chunk: operation, chunk, psnr (dB, inf for equal pictures), kv_bytes, kv_change (bytes)."""
    rows = [
        (effect.label, chunk, np.inf if psnr is None else psnr, effect.kv_bytes, effect.kv_change)
        for effect in effects
        for chunk, psnr in enumerate(effect.psnr)
    ]
    return pd.DataFrame(rows, columns=["operation", "chunk", "psnr", "kv_bytes", "kv_change"])


def draw_surgery(effects: Sequence[Effect], subtitle: str = "", theme: Theme = "light") -> Figure:
    """Left: PSNR to the untouched run over chunks, equal pictures at the top. Right: the change in KV bytes of the last chunk.

    Raises ValueError without effects.
    """
    if not effects:
        raise ValueError("there is no operation to draw")
    table = surgery_table(effects)
    names = list(dict.fromkeys(table.operation))
    top = 10 * (table.psnr[np.isfinite(table.psnr)].max() // 10 + 2) if np.isfinite(table.psnr).any() else 60
    with drawing(theme) as colours:
        figure = canvas(TITLE, subtitle, 10, max(3.8, 2.6 + 0.3 * len(names)), colours)
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        for i, name in enumerate(names):
            own = table[table.operation == name]
            look = {"color": COLOURS[i % 5], "ls": LINES[i % 4], "marker": MARKS[i % 6], "ms": 5, "lw": 1.8}
            left.plot(own.chunk, own.psnr.clip(upper=top), label=name, **look)
        left.axhline(top, color=colours.soft, lw=1, ls=":")
        left.annotate(
            "equal pictures",
            (1, top),
            (0, -3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top",
            size=8,
            color=colours.soft,
        )
        left.set(
            xlabel="chunk", ylabel="PSNR to the untouched run, dB", ylim=(0, top + 4), xticks=sorted(set(table.chunk))
        )
        change = table.groupby("operation", sort=False).kv_change.last() / 1e6
        hues = {name: COLOURS[i % 5] for i, name in enumerate(names)}
        sns.barplot(x=change.to_numpy(), y=names, hue=names, palette=hues, legend=False, saturation=1, ax=right)
        right.axvline(0, color=colours.soft, lw=1)
        reach = max(change.abs().max(), 1e-6) * 1.5
        for row, value in enumerate(change):
            side, gap = ("left", 4) if value >= 0 else ("right", -4)
            right.annotate(
                f"{value:+.3f}", (value, row), (gap, 0), textcoords="offset points", ha=side, va="center", size=8
            )
        right.set(
            xlabel="change in KV memory, MB",
            xlim=(-reach * (change.min() < 0), reach * (1 if change.max() > 0 else 0.1)),
        )
        right.tick_params(axis="y", length=0)
        sns.despine(ax=right, left=True)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure
