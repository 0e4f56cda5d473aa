"""Figures of an evaluation: policies side by side, and strips of frames over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from fkv.records import Record

from .evaluation_report import over_time
from .evaluation_table import FEWEST, RESAMPLES
from .figures.style import SERIES, Palette, canvas, drawing

MEASURES = {
    "discontinuity": ("chunk discontinuity", 1),
    "drift.colours": ("drift of colours", 1),
    "fps_end_to_end": ("fps_end_to_end", 1),
    "kv_bytes_peak": ("peak KV (MiB)", 2**20),
}
MARKS = "os^Dv"
# With more policies adherence is a heatmap: so many lines cannot be told apart.
MOST_LINES = 8
# Pixels between the frames of a strip.
GAP = 3
# Strips on a page.
PAGE = 6


def overview(records: Sequence[Record], path: str | Path, reference: str = "full") -> None:
    """Write adherence over time, discontinuity, drift, speed and memory per policy, with 95 % intervals over prompts.

    Args:
        records: Of `fkv eval`.
        path: Image file to write.
        reference: The policy that is drawn dashed.
    """
    names = list(dict.fromkeys(record["policy"] for record in records))
    colours = {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}
    measured = pd.json_normalize(list(records))
    known = {column: label for column, label in MEASURES.items() if column in measured}
    # One row per prompt: seeds of a prompt and words of a stream are not independent, and bars would be too short.
    seen = _by_prompt(over_time(records), ["policy", "prompt", "seconds"], ["adherence"])
    measured = _by_prompt(measured, ["policy", "prompt"], list(known))
    is_few = measured["prompt"].nunique() < FEWEST
    bars: dict[str, Any] = {"errorbar": None if is_few else ("ci", 95), "n_boot": RESAMPLES, "seed": 0}
    with drawing("light") as theme:
        streams = f"{len(records) // len(names)} streams per policy, means"
        streams += f"; fewer than {FEWEST} prompts have no intervals" if is_few else " with 95 % intervals over prompts"
        picture = canvas("Evaluation by the toy world's oracle", streams, 13, max(3.8, 1.4 + 0.24 * len(names)), theme)
        first, *others = picture.subplots(1, 1 + len(known), width_ratios=(2, *(1,) * len(known)))
        if len(names) > MOST_LINES:
            means = seen.pivot_table("adherence", "policy", "seconds").reindex(names)
            means.columns = means.columns.map("{:g}".format)
            sns.heatmap(means, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", cbar=False, ax=first)
            first.set(xlabel="seconds into the stream", ylabel="", title="adherence to the prompt, means")
        else:
            _lines(seen, colours, reference, bars, first)
        for number, (axes, (column, (label, unit))) in enumerate(zip(others, known.items(), strict=True)):
            sns.barplot(
                x=measured[column] / unit,
                y=measured["policy"],
                order=names,
                hue=measured["policy"],
                palette=colours,
                legend=False,
                ax=axes,
                **bars,
            )
            axes.set(xlabel=label, ylabel="")
            axes.tick_params(labelleft=number == 0 and len(names) <= MOST_LINES)
        picture.savefig(path, dpi=150)


def _by_prompt(rows: pd.DataFrame, names: list[str], values: list[str]) -> pd.DataFrame:
    """Average values over all rows that agree in some columns."""
    return rows.groupby(names, sort=False, as_index=False)[values].mean()


def _lines(seen: pd.DataFrame, colours: dict[str, Any], reference: str, bars: dict[str, Any], axes: Axes) -> None:
    """Draw adherence over time, one line per policy."""
    sns.pointplot(
        seen,
        x="seconds",
        y="adherence",
        hue="policy",
        palette=colours,
        dodge=0.25 if len(colours) > 1 else False,
        linewidth=1.6,
        formatter="{:g}".format,
        ax=axes,
        markers=[MARKS[i % len(MARKS)] for i in range(len(colours))],
        linestyles=["--" if name == reference else "-" for name in colours],
        **bars,
    )
    axes.legend(loc="lower left")
    axes.set(ylim=(0, 1.05), xlabel="seconds into the stream", ylabel="adherence to the prompt")


def filmstrips(titles: Sequence[str], strips: Sequence[np.ndarray], seconds: Sequence[float], path: str | Path) -> None:
    """Write strips of frames, each below its title, with their times under the last one.

    Args:
        titles: Title of each strip.
        strips: Frames of each strip, uint8 [len(seconds), H, W, 3].
        seconds: Times of the frames.
        path: Image file to write.
    """
    with drawing("light") as theme:
        _strips(titles, strips, seconds, theme).savefig(path, dpi=130)


def filmstrip_pages(
    titles: Sequence[str], strips: Sequence[np.ndarray], seconds: Sequence[float], path: str | Path
) -> None:
    """Write a PDF of numbered strips whose last page has their titles; parameters as in `filmstrips`."""
    numbers = [str(1 + i) for i in range(len(titles))]
    with drawing("light") as theme, PdfPages(path) as pages:
        for first in range(0, len(strips), PAGE):
            on_page = slice(first, first + PAGE)
            pages.savefig(_strips(numbers[on_page], strips[on_page], seconds, theme), dpi=130)
        last = Figure(figsize=(len(seconds) * 1.6, 0.6 + 0.3 * len(titles)))
        lines = [f"{number}.  {title}" for number, title in zip(numbers, titles, strict=True)]
        last.text(0.02, 0.5, "\n".join(lines), va="center", linespacing=1.8, color=theme.ink)
        pages.savefig(last)


def _strips(titles: Sequence[str], strips: Sequence[np.ndarray], seconds: Sequence[float], theme: Palette) -> Figure:
    """Draw what `filmstrips` writes."""
    width = strips[0].shape[2]
    digits = 0 if max(seconds) >= 20 else 1
    gap = ((0, 0), (0, GAP), (0, 0))
    picture = Figure(figsize=(len(seconds) * 1.6, 0.2 + len(strips) * 1.25))
    rows = picture.subplots(len(strips), 1, squeeze=False)[:, 0]
    for row, (axes, title, strip) in enumerate(zip(rows, titles, strips, strict=True)):
        axes.imshow(np.concatenate([np.pad(frame, gap, constant_values=255) for frame in strip], 1))
        axes.set_title(title, pad=3, color=theme.ink)
        axes.set_yticks([])
        axes.set_xticks(
            [(width + GAP) * i + width / 2 for i in range(len(seconds))], [f"{at:.{digits}f} s" for at in seconds]
        )
        axes.tick_params(length=0, labelbottom=row == len(strips) - 1)
        axes.spines[:].set_visible(False)
    return picture
