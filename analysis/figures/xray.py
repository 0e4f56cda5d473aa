"""The cache X-ray: what every chunk could attend to, drawn from the page tables of the run.

A row is a chunk, a column a latent frame; within a cell segments lie as in the picture, the first on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from plotly.subplots import make_subplots

from fkv.policies.kinds import DROPPED, KINDS
from fkv.stream import Chunk

from .style import PANEL_MARGIN, Theme, canvas, drawing, finish, palette

STATES = (DROPPED, *(key for key in KINDS if key != DROPPED))
NOT_YET = -1


def page_states(chunks: Sequence[Chunk], group: str) -> np.ndarray:
    """What each segment of each frame was to each chunk: indices into `STATES`, -1 before it existed.

    [chunks, segments, frames]. Chunks in which the head group did not exist (policies may change) are -1 throughout.
    Raises ValueError without chunks.
    """
    if not chunks:
        raise ValueError("there is no chunk to draw")
    segments, frames = max(chunk.segments for chunk in chunks), chunks[-1].frames[-1] + 1
    states = np.full((len(chunks), segments, frames), NOT_YET)
    for row, chunk in zip(states, chunks):
        if group not in chunk.pages:
            continue
        row[:, : chunk.frames[0]] = STATES.index(DROPPED)
        pages, height = chunk.pages[group], segments // chunk.segments
        for frame, segment, kind in zip(pages.frame, pages.segment, chunk.kinds[group], strict=True):
            row[segment * height : (segment + 1) * height, frame] = STATES.index(kind)
    return states


@dataclass(frozen=True)
class _View:
    """Head groups that saw the same, and what they saw: `page_states`."""

    title: str
    states: np.ndarray


def _views(chunks: Sequence[Chunk]) -> list[_View]:
    groups = list(dict.fromkeys(name for chunk in chunks for name in chunk.pages))
    alike: dict[bytes, list[str]] = {}
    states = {name: page_states(chunks, name) for name in groups}
    for name in groups:
        alike.setdefault(states[name].tobytes(), []).append(name)

    def title(names: list[str]) -> str:
        held = [len(chunk.pages[names[0]]) / chunk.segments for chunk in chunks if names[0] in chunk.pages]
        called = " and ".join("ungrouped" if name == "all" and len(groups) > 1 else name for name in names)
        return f"{called} heads: {held[-1]:.3g} frames attended in the last chunk"

    return [_View(title(names), states[names[0]]) for names in alike.values()]


def page_table(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """One row per page that existed: chunk, group, frame, segment, state, and whether it survived the chunk."""
    rows = []
    for chunk in chunks:
        for group, pages in chunk.pages.items():
            columns = pages.frame.tolist(), pages.segment.tolist(), chunk.kinds[group], chunk.kept[group].tolist()
            rows += [(chunk.index, group, *page) for page in zip(*columns, strict=True)]
    return pd.DataFrame(rows, columns=["chunk", "group", "frame", "segment", "state", "survives"])


def _heading(chunks: Sequence[Chunk]) -> tuple[str, str]:
    policy = ", then ".join(dict.fromkeys(chunk.policy for chunk in chunks))
    return (
        f"Cache X-ray: {policy}",
        "each row is a chunk, each column a latent frame; bands in a cell are segments of that frame, as they lie in the picture",
    )


def _colours(theme: Theme) -> list[str]:
    """The colour of each of `STATES`; what was dropped is opaque in figures."""
    return [palette(theme).dropped, *(KINDS[state].colour(theme) for state in STATES[1:])]


def _legend(state: str) -> str:
    kind = KINDS[state]
    return kind.name if state == DROPPED else f"{kind.letter}  {kind.name}"


def _letters(states: np.ndarray) -> list[tuple[int, int, str]]:
    """Chunk, frame and letter of the cells that are one state throughout."""
    found = []
    for chunk, frame in zip(*np.nonzero((states == states[:, :1]).all(1) & (states[:, 0] > 0))):
        found.append((int(chunk), int(frame), KINDS[STATES[states[chunk, 0, frame]]].letter))
    return found


def cache_xray(chunks: Sequence[Chunk], theme: Theme = "light") -> go.Figure:
    """One panel per kind of head group, for looking at; groups that saw the same share one."""
    views, colours = _views(chunks), palette(theme)
    scale = _colours(theme)
    steps = [(edge / len(scale), colour) for i, colour in enumerate(scale) for edge in (i, i + 1)]
    titles, gaps = [view.title for view in views], []
    figure = make_subplots(len(views), 1, shared_xaxes=True, vertical_spacing=0.14 / len(views), subplot_titles=titles)
    for panel, states in enumerate((view.states for view in views), 1):
        count, segments, frames = states.shape
        flat = np.where(states == NOT_YET, np.nan, states.astype(float)).reshape(count * segments, frames)
        names = np.array([KINDS[state].name for state in STATES])[np.maximum(states, 0)].reshape(flat.shape)
        figure.add_heatmap(
            z=flat,
            y=[chunk.index - 0.5 + (s + 0.5) / segments for chunk in chunks for s in range(segments)],
            x=list(range(frames)),
            colorscale=steps,
            zmin=-0.5,
            zmax=len(scale) - 0.5,
            showscale=False,
            xgap=1,
            ygap=0,
            hoverongaps=False,
            row=panel,
            col=1,
            customdata=np.dstack([names, np.tile(np.arange(segments)[:, None], (count, frames))]),
            hovertemplate="frame %{x}, segment %{customdata[1]}<br>%{customdata[0]}<extra></extra>",
        )
        axis = "" if panel == 1 else panel
        gaps += [
            {
                "type": "line",
                "xref": f"x{axis} domain",
                "yref": f"y{axis}",
                "x0": 0,
                "x1": 1,
                "y0": y,
                "y1": y,
                "line": {"color": colours.paper, "width": 3},
            }
            for y in (chunk.index - 0.5 for chunk in chunks[1:])
        ]
        letters = _letters(states)
        if letters and count <= 40 and frames <= 60:
            rows, cols, text = zip(*letters)
            figure.add_scatter(
                x=cols,
                y=[chunks[row].index for row in rows],
                text=text,
                mode="text",
                hoverinfo="skip",
                showlegend=False,
                textfont={"size": 9, "color": "#10151d"},
                row=panel,
                col=1,
            )
        figure.update_yaxes(
            title="chunk", range=[chunks[-1].index + 0.5, chunks[0].index - 0.5], showgrid=False, row=panel, col=1
        )
        figure.update_xaxes(range=[-0.5, frames - 0.5], showgrid=False, row=panel, col=1)
    for state, colour in zip(STATES, scale, strict=True):
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=_legend(state),
            marker={"symbol": "square", "size": 12, "color": colour},
        )
    figure.update_xaxes(title="latent frame", row=len(views), col=1)
    figure.update_annotations(x=0, xanchor="left", font={"size": 12, "color": colours.soft})
    height = 180 + len(views) * int(np.clip(22 * len(chunks), 110, 420))
    figure.update_layout(legend={"y": -48 / (height - 160)}, margin=PANEL_MARGIN, shapes=gaps)
    return finish(figure, *_heading(chunks), theme, height)


def draw_cache_xray(chunks: Sequence[Chunk], theme: Theme = "light") -> Figure:
    """The same as `cache_xray`, for a file."""
    views = _views(chunks)
    with drawing(theme) as colours:
        scale = _colours(theme)
        each = float(np.clip(0.2 * len(chunks), 1.1, 4.5)) + 0.35
        figure = canvas(*_heading(chunks), 9.6, each * len(views) + 1.6, colours)
        axes = figure.subplots(len(views), 1, sharex=True, squeeze=False)[:, 0]
        for ax, view in zip(axes, views):
            count, segments, frames = (states := view.states).shape
            flat = np.ma.masked_less(states.reshape(count * segments, frames), 0)
            extent = (-0.5, frames - 0.5, chunks[-1].index + 0.5, chunks[0].index - 0.5)
            ax.imshow(
                flat,
                cmap=ListedColormap(scale),
                vmin=-0.5,
                vmax=len(scale) - 0.5,
                aspect="auto",
                extent=extent,
                interpolation="none",
            )
            ax.vlines(np.arange(frames) - 0.5, *extent[2:], color=colours.paper, lw=0.8)
            ax.hlines([chunk.index - 0.5 for chunk in chunks], *extent[:2], color=colours.paper, lw=2)
            if count <= 40 and frames <= 60:
                for row, frame, letter in _letters(states):
                    ax.text(
                        frame, chunks[row].index, letter, ha="center", va="center_baseline", size=6.5, color="#10151d"
                    )
            step = max(1, count // 10)
            ax.set(
                xlim=extent[:2],
                ylim=extent[2:],
                ylabel="chunk",
                yticks=range(chunks[0].index, chunks[-1].index + 1, step),
            )
            ax.set_title(view.title, size=9, color=colours.soft)
            ax.tick_params(length=0)
            for spine in ax.spines.values():
                spine.set_visible(False)
        axes[-1].set_xlabel("latent frame")
        handles = [Patch(color=colour, label=_legend(state)) for state, colour in zip(STATES, scale, strict=True)]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(STATES))
    return figure
