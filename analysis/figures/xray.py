"""The cache X-ray: what every chunk could attend to, drawn from the page tables of the run.

A row is a chunk, a column a latent frame; within a cell, segments are stacked as in the frame, the first on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from fkv.policies.kinds import DROPPED, KINDS
from fkv.stream import Chunk

from .style import PANEL_MARGIN, Look, Palette
from .view import View

# A frame that did not exist yet.
NOT_YET = ""
# Letters are readable up to this many chunks and frames.
MAX_LETTERS = (40, 60)
LETTER_COLOUR = "#10151d"


@dataclass(frozen=True)
class _Panel:
    """Head groups that attended to the same pages, and their `page_kinds`."""

    title: str
    kinds: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The segments of all chunks one below the other: indices into `KINDS`, NaN before a frame existed."""
        index = {NOT_YET: np.nan} | {kind: float(i) for i, kind in enumerate(KINDS)}
        return np.vectorize(index.get, otypes=[float])(np.concatenate(self.kinds))

    @property
    def letters(self) -> list[tuple[int, int, str]]:
        """Row, frame and letter of the cached cells that are of one kind; none where they would not be readable."""
        kinds = self.kinds
        if kinds.shape[0] > MAX_LETTERS[0] or kinds.shape[2] > MAX_LETTERS[1]:
            return []
        uniform = (kinds == kinds[:, :1]).all(1) & ~np.isin(kinds[:, 0], (NOT_YET, DROPPED))
        return [(row, frame, KINDS[kinds[row, 0, frame]].letter) for row, frame in np.argwhere(uniform).tolist()]


class CacheXray(View):
    """One panel per head group; groups that attended to the same pages share one.

    The table has one row per page that existed: chunk, group, frame, segment, kind (a key of
    `fkv.policies.kinds.KINDS`), and survives, whether the page was still cached after the chunk.

    Args:
        chunks: The chunks of a run in order.

    Raises:
        ValueError: There are no chunks.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._panels = _panels(chunks)
        self._numbers = [chunk.index + 1 for chunk in chunks]
        count = len(self._panels)
        policy = ", then ".join(dict.fromkeys(chunk.policy for chunk in chunks))
        inches = float(np.clip(0.2 * len(chunks), 1.1, 4.5)) + 0.35
        super().__init__(
            "cache-xray",
            f"Cache X-ray: {policy}",
            "each row is a chunk, each column a latent frame; bands in a cell are segments, top to bottom",
            page_table(chunks),
            height=180 + count * int(np.clip(22 * len(chunks), 110, 420)),
            size=(9.6, inches * count + 1.6),
        )

    def _plotly(self, colours: Palette) -> go.Figure:
        count = len(self._panels)
        titles = [panel.title for panel in self._panels]
        spacing = 0.14 / count
        figure = make_subplots(count, 1, shared_xaxes=True, vertical_spacing=spacing, subplot_titles=titles)
        for row, panel in enumerate(self._panels, 1):
            self._plotly_panel(figure, panel, row, colours)
        for label, colour in _legend(colours).items():
            marker = {"symbol": "square", "size": 12, "color": colour}
            figure.add_scatter(x=[None], y=[None], mode="markers", name=label, marker=marker)
        figure.update_xaxes(title="latent frame", row=count, col=1)
        figure.update_annotations(x=0, xanchor="left", font={"size": 12, "color": colours.soft})
        return figure.update_layout(legend={"y": -48 / (self.height - 160)}, margin=PANEL_MARGIN)

    def _plotly_panel(self, figure: go.Figure, panel: _Panel, row: int, colours: Palette) -> None:
        count, segments, frames = panel.kinds.shape
        names = [[KINDS[kind].name if kind else "" for kind in row] for row in np.concatenate(panel.kinds)]
        scale = list(_legend(colours).values())
        figure.add_heatmap(
            z=panel.rows,
            y=[number - 0.5 + (segment + 0.5) / segments for number in self._numbers for segment in range(segments)],
            x=list(range(frames)),
            colorscale=[(edge / len(scale), colour) for i, colour in enumerate(scale) for edge in (i, i + 1)],
            zmin=-0.5,
            zmax=len(scale) - 0.5,
            showscale=False,
            xgap=1,
            ygap=0,
            hoverongaps=False,
            row=row,
            col=1,
            customdata=np.dstack([names, np.tile(np.arange(segments)[:, None], (count, frames))]),
            hovertemplate="frame %{x}, segment %{customdata[1]}<br>%{customdata[0]}<extra></extra>",
        )
        axis = "" if row == 1 else row
        across = {"xref": f"x{axis} domain", "yref": f"y{axis}", "x0": 0, "x1": 1}
        for number in self._numbers[1:]:
            line = {"color": colours.paper, "width": 3}
            figure.add_shape(type="line", **across, y0=number - 0.5, y1=number - 0.5, line=line)
        if panel.letters:
            rows, columns, letters = zip(*panel.letters, strict=True)
            figure.add_scatter(
                x=columns,
                y=[self._numbers[row] for row in rows],
                text=letters,
                mode="text",
                hoverinfo="skip",
                showlegend=False,
                textfont={"size": 9, "color": LETTER_COLOUR},
                row=row,
                col=1,
            )
        down = [self._numbers[-1] + 0.5, self._numbers[0] - 0.5]
        figure.update_yaxes(title="chunk", range=down, showgrid=False, row=row, col=1)
        figure.update_xaxes(range=[-0.5, frames - 0.5], showgrid=False, row=row, col=1)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        axes = figure.subplots(len(self._panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, panel in zip(axes, self._panels, strict=True):
            self._draw_panel(ax, panel, colours)
        axes[-1].set_xlabel("latent frame")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = [Patch(color=colour, label=label) for label, colour in _legend(colours).items()]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))

    def _draw_panel(self, ax: Axes, panel: _Panel, colours: Palette) -> None:
        count, _, frames = panel.kinds.shape
        across = (-0.5, frames - 0.5)
        down = (self._numbers[-1] + 0.5, self._numbers[0] - 0.5)
        scale = list(_legend(colours).values())
        look: Look = {"cmap": ListedColormap(scale), "vmin": -0.5, "vmax": len(scale) - 0.5}
        ax.imshow(panel.rows, aspect="auto", extent=across + down, interpolation="none", **look)
        ax.vlines(np.arange(frames) - 0.5, *down, color=colours.paper, lw=0.8)
        ax.hlines([number - 0.5 for number in self._numbers], *across, color=colours.paper, lw=2)
        for row, frame, letter in panel.letters:
            letters: Look = {"ha": "center", "va": "center_baseline", "size": 6.5, "color": LETTER_COLOUR}
            ax.text(frame, self._numbers[row], letter, **letters)
        ax.set(xlim=across, ylim=down, ylabel="chunk", yticks=self._numbers[:: max(1, count // 10)])
        ax.set_title(panel.title, size=9, color=colours.soft)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)


def _legend(colours: Palette) -> dict[str, str]:
    """Colours by label, in the order of `KINDS`; dropped pages are opaque in figures."""
    shown = {kind.key: kind.colour(colours.theme) for kind in KINDS.values()} | {DROPPED: colours.dropped}
    return {f"{KINDS[key].letter}  {KINDS[key].name}": colour for key, colour in shown.items()}


def _panels(chunks: Sequence[Chunk]) -> list[_Panel]:
    groups = list(dict.fromkeys(name for chunk in chunks for name in chunk.pages))
    if not groups:
        raise ValueError("there is no chunk to draw")
    kinds = {name: page_kinds(chunks, name) for name in groups}
    alike: dict[bytes, list[str]] = {}
    for name in groups:
        alike.setdefault(kinds[name].tobytes(), []).append(name)

    def title(names: list[str]) -> str:
        held = [len(chunk.pages[names[0]]) / chunk.segments for chunk in chunks if names[0] in chunk.pages]
        split = len(groups) > 1  # then a group of all heads is the first layer's, as on the page
        called = " and ".join("first-layer" if name == "all" and split else name for name in names)
        return f"{called} heads: {held[-1]:.3g} frames attended in the last chunk"

    return [_Panel(title(names), kinds[names[0]]) for names in alike.values()]


def page_kinds(chunks: Sequence[Chunk], group: str) -> np.ndarray:
    """Tell what each segment of each latent frame was for while each chunk attended.

    Args:
        chunks: The chunks of a run in order.
        group: Name of a head group.

    Returns:
        Keys of `fkv.policies.kinds.KINDS`, "" before a frame existed: [chunks, segments, frames]. Chunks without the
        head group (policies may change) are "" throughout.

    Raises:
        ValueError: There are no chunks.
    """
    if not chunks:
        raise ValueError("there is no chunk to draw")
    segments = max(chunk.segments for chunk in chunks)
    frames = chunks[-1].frames[-1] + 1
    kinds = np.full((len(chunks), segments, frames), NOT_YET, f"<U{max(map(len, KINDS))}")
    for row, chunk in zip(kinds, chunks, strict=True):
        if group not in chunk.pages:
            continue
        row[:, : chunk.frames[0]] = DROPPED
        pages = chunk.pages[group]
        height = segments // chunk.segments
        for frame, segment, kind in zip(pages.frame, pages.segment, chunk.kinds[group], strict=True):
            row[segment * height : (segment + 1) * height, frame] = kind
    return kinds


def page_table(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """Tabulate pages: one row per page that existed with chunk (from 1), group, frame, segment, kind, survives."""
    parts = [
        pd.DataFrame(
            {
                "chunk": chunk.index + 1,
                "group": group,
                "frame": pages.frame,
                "segment": pages.segment,
                "kind": chunk.kinds[group],
                "survives": chunk.kept[group],
            }
        )
        for chunk in chunks
        for group, pages in chunk.pages.items()
    ]
    return pd.concat(parts, ignore_index=True)
