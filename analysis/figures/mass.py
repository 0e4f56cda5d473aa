"""Attention mass over frames: the frame x frame map of one head, and mass by age of the key frame for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fkv.probe import AGES, PassMass
from fkv.roles import HeadRoles

from .style import (
    AGE_COLOURS,
    AGE_HATCHES,
    PLOTLY_HATCHES,
    ROLE_COLOURS,
    ROLE_MARKS,
    Theme,
    canvas,
    drawing,
    finish,
    palette,
    pattern,
)

AGE_NAMES = {"sink": "sink frame", "older": "older frames", "anchor": "anchor frame", "current": "current chunk"}


def frame_matrix(masses: Sequence[PassMass], layer: int, head: int, name: str = "context") -> pd.DataFrame:
    """Mass of one head from every recorded query frame (rows) to every key frame (columns) in the passes called `name`.

    Missing where a query could not see the key: it came later, or the cache no longer held it.
    Raises ValueError when no such pass was recorded or there is no such head.
    """
    chosen = [mass for mass in masses if mass.name == name]
    if not chosen:
        raise ValueError(
            f"no pass {name!r} was recorded; there are {', '.join(dict.fromkeys(m.name for m in masses)) or 'none'}"
        )
    layers, heads = chosen[0].mass.shape[:2]
    if not (0 <= layer < layers and 0 <= head < heads):
        raise ValueError(f"there is no head {head} in layer {layer}; the record has {layers} layers of {heads} heads")
    keys = range(max(mass.key_frames[-1] for mass in chosen) + 1)
    parts = [pd.DataFrame(mass.mass[layer, head], index=mass.frames, columns=mass.key_frames) for mass in chosen]
    matrix = pd.concat(parts).reindex(columns=keys)
    return matrix.where(matrix > 0).rename_axis("query frame").rename_axis("key frame", axis=1)


def _heading(masses: Sequence[PassMass], layer: int, head: int, name: str) -> tuple[str, str]:
    return (
        f"Where head {head} of layer {layer} looks",
        f"attention mass per latent frame  ·  {name} pass  ·  rows sum to 1",
    )


def frame_map(
    masses: Sequence[PassMass], layer: int, head: int, name: str = "context", theme: Theme = "light"
) -> go.Figure:
    """Frame x frame heatmap of a head, `frame_matrix` drawn; the outline is the chunk that the queries belong to."""
    matrix, colours = frame_matrix(masses, layer, head, name), palette(theme)
    figure = go.Figure(
        go.Heatmap(
            z=matrix.to_numpy(),
            x=matrix.columns,
            y=matrix.index,
            colorscale="Cividis",
            zmin=0,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"title": {"text": "mass"}, "thickness": 12, "outlinewidth": 0, "len": 1, "ypad": 0},
            hovertemplate="query frame %{y} → key frame %{x}<br>mass %{z:.3f}<extra></extra>",
        )
    )
    edges = [(mass.frames[0] - 0.5, mass.frames[-1] + 0.5) for mass in masses if mass.name == name]
    line = {"color": AGE_COLOURS["current"], "width": 2}
    figure.update_layout(
        shapes=[{"type": "rect", "x0": low, "x1": high, "y0": low, "y1": high, "line": line} for low, high in edges]
    )
    figure.update_xaxes(title="key frame", showgrid=False, range=[-0.5, len(matrix.columns) - 0.5])
    figure.update_yaxes(title="query frame", showgrid=False, range=[matrix.index[-1] + 0.5, matrix.index[0] - 0.5])
    figure.update_layout(plot_bgcolor=colours.grid)
    return finish(figure, *_heading(masses, layer, head, name), theme, int(np.clip(190 + 18 * len(matrix), 260, 760)))


def draw_frame_map(
    masses: Sequence[PassMass], layer: int, head: int, name: str = "context", theme: Theme = "light"
) -> Figure:
    """The same as `frame_map`, for a file."""
    matrix = frame_matrix(masses, layer, head, name)
    rows, cols = matrix.shape
    cell = float(np.clip(8 / cols, 0.08, 0.3))
    with drawing(theme) as colours:
        figure = canvas(
            *_heading(masses, layer, head, name), max(7.4, cell * cols + 1.8), max(2.6, cell * rows + 1.7), colours
        )
        ax = figure.subplots()
        sns.heatmap(
            matrix,
            ax=ax,
            cmap="cividis",
            vmin=0,
            linewidths=0.4,
            linecolor=colours.paper,
            cbar_kws={"label": "mass", "pad": 0.02},
            xticklabels=False,
            yticklabels=False,
        )
        ax.set_facecolor(colours.grid)
        for mass in (m for m in masses if m.name == name):
            top = matrix.index.get_loc(mass.frames[0])
            ax.add_patch(_outline(mass.frames[0], top, len(mass.frames)))
        step = max(1, cols // 24)
        ax.set_xticks(np.arange(0, cols, step) + 0.5, range(0, cols, step), rotation=0)
        step = max(1, rows // 24)
        ax.set_yticks(np.arange(0, rows, step) + 0.5, matrix.index[::step], rotation=0)
        ax.tick_params(length=0)
    return figure


def _outline(x: float, y: float, size: int) -> Rectangle:
    return Rectangle((x, y), size, size, fill=False, edgecolor=AGE_COLOURS["current"], linewidth=1.6, clip_on=False)


def age_table(masses: Sequence[PassMass], roles: HeadRoles) -> pd.DataFrame:
    """Mean mass per class of key frames for every head, and its role: columns layer, head, role, then `AGES`.

    Raises ValueError when nothing was recorded, RolesError when the roles are for a model of another size.
    """
    if not masses:
        raise ValueError("no attention was recorded")
    shares = np.mean([mass.by_age for mass in masses], 0)
    roles.check(*shares.shape[:2])
    layer, head = np.indices(shares.shape[:2]).reshape(2, -1)
    role = np.where(roles.is_static().reshape(-1), "static", "dynamic")
    table = pd.DataFrame({"layer": layer, "head": head, "role": role})
    return table.assign(**dict(zip(AGES, shares.reshape(-1, len(AGES)).T)))


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """Heads that look nearby first."""
    return table.assign(near=table.current + table.anchor).sort_values("near", ascending=False, ignore_index=True)


AGE_TITLE = "How old are the frames that heads look at"


def _age_subtitle(table: pd.DataFrame) -> str:
    means = table.groupby("role")[["anchor", "current"]].mean().sum(axis=1)
    near = ", ".join(f"{role} {share:.0%}" for role, share in means[::-1].items())
    return f"one bar per head  ·  mean share of near frames (current chunk and anchor): {near}"


def age_bars(masses: Sequence[PassMass], roles: HeadRoles, theme: Theme = "light") -> go.Figure:
    """Stacked bars of mass by age, one per head; the strip of marks below says the head's role."""
    table = _sorted(age_table(masses, roles))
    names, figure = table[["layer", "head"]].to_numpy(), go.Figure()
    for age in reversed(AGES):
        figure.add_bar(
            y=table[age],
            name=AGE_NAMES[age],
            customdata=names,
            marker={"color": AGE_COLOURS[age], "line": {"width": 0}, "pattern": pattern(PLOTLY_HATCHES[age], theme)},
            hovertemplate=f"layer %{{customdata[0]}}, head %{{customdata[1]}}<br>{AGE_NAMES[age]}: %{{y:.1%}}<extra></extra>",
        )
    for role, colour in ROLE_COLOURS.items():
        at = np.flatnonzero(table.role == role)
        figure.add_scatter(
            x=at,
            y=np.full(len(at), -0.045),
            mode="markers",
            name=f"{role} head",
            hoverinfo="skip",
            cliponaxis=False,
            marker={"symbol": ROLE_MARKS[role][0], "color": colour, "size": float(np.clip(560 / len(table), 3, 9))},
        )
    figure.update_xaxes(title="heads", showticklabels=False, ticks="", showgrid=False, range=[-0.7, len(table) - 0.3])
    figure.update_yaxes(
        title="share of attention mass", tickformat=".0%", range=[-0.09, 1], tickvals=[0, 0.25, 0.5, 0.75, 1]
    )
    figure.update_layout(barmode="stack", bargap=0.08 if len(table) < 200 else 0)
    return finish(figure, AGE_TITLE, _age_subtitle(table), theme, 440)


def draw_age_bars(masses: Sequence[PassMass], roles: HeadRoles, theme: Theme = "light") -> Figure:
    """The same as `age_bars`, for a file."""
    table = _sorted(age_table(masses, roles))
    with drawing(theme) as colours:
        figure = canvas(AGE_TITLE, _age_subtitle(table), 9.2, 4.4, colours)
        ax = figure.subplots()
        bottom = np.zeros(len(table))
        for age in reversed(AGES):
            ax.bar(
                table.index,
                table[age],
                bottom=bottom,
                width=0.92 if len(table) < 200 else 1.0,
                label=AGE_NAMES[age],
                color=AGE_COLOURS[age],
                hatch=AGE_HATCHES[age] if len(table) < 200 else None,
                linewidth=0,
            )
            bottom += table[age].to_numpy()
        for role, colour in ROLE_COLOURS.items():
            at = np.flatnonzero(table.role == role)
            ax.scatter(
                at,
                np.full(len(at), -0.04),
                s=float(np.clip(1400 / len(table), 2, 26)),
                c=colour,
                marker=ROLE_MARKS[role][1],
                label=f"{role} head",
            )
        ax.set(
            xlim=(-0.8, len(table) - 0.2),
            ylim=(-0.085, 1.0),
            ylabel="share of attention mass",
            xlabel="heads",
            xticks=[],
        )
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        sns.despine(ax=ax, bottom=True)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=6)
    return figure
