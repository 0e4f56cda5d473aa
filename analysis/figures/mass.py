"""Attention mass over frames: the frame x frame map of one head, and mass by age of the key frame for all heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fkv.policies.kinds import KINDS
from fkv.probe import AGES, PassMass
from fkv.roles import HeadRoles

from .heads import role_table
from .style import (
    CURRENT,
    HATCHES,
    MARKERS,
    ROLE_COLOURS,
    ROLE_SYMBOLS,
    Look,
    Palette,
    legend_below,
    pattern,
)
from .view import View

# Names of the ages, and the page kinds whose colours and patterns they take.
AGE_NAMES = {"sink": "first frame", "older": "older frames", "anchor": "frame before", "current": "current chunk"}
AGE_KINDS = {age: KINDS["kept" if age == "older" else age] for age in AGES}
SHARES = {0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1: "100 %"}
# From this many heads on, bars touch and have no hatches.
MANY_HEADS = 200


class FrameMap(View):
    """Frame x frame heatmap of one head, `frame_matrix` drawn; outlines are the chunks that the queries belong to.

    Args:
        masses: Recorded passes, as `fkv.probe.FrameMassProbe` takes them.
        layer: Layer of the head.
        head: Number of the head in its layer.
        name: Which passes to show: `context`, `step 0`, ...

    Raises:
        ValueError: No such pass was recorded, or there is no such head.
    """

    def __init__(self, masses: Sequence[PassMass], layer: int, head: int, name: str = "context") -> None:
        self._matrix = frame_matrix(masses, layer, head, name)
        self._chunks = [mass.frames for mass in masses if mass.name == name]
        rows, cols = self._matrix.shape
        cell = float(np.clip(8 / cols, 0.08, 0.3))
        super().__init__(
            f"frames-layer{layer}-head{head}",
            f"Where head {head} of layer {layer} looks",
            f"attention mass per latent frame  ·  {name} pass  ·  rows sum to 1",
            self._matrix.reset_index(),
            height=int(np.clip(190 + 18 * rows, 260, 760)),
            size=(max(7.4, cell * cols + 1.8), max(2.6, cell * rows + 1.7)),
        )

    def _plotly(self, colours: Palette) -> go.Figure:
        matrix = self._matrix
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
        line = {"color": CURRENT, "width": 2}
        edges = [(frames[0] - 0.5, frames[-1] + 0.5) for frames in self._chunks]
        outlines = [{"type": "rect", "x0": low, "x1": high, "y0": low, "y1": high, "line": line} for low, high in edges]
        figure.update_xaxes(title="key frame", showgrid=False, range=[-0.5, len(matrix.columns) - 0.5])
        figure.update_yaxes(title="query frame", showgrid=False, range=[matrix.index[-1] + 0.5, matrix.index[0] - 0.5])
        return figure.update_layout(shapes=outlines, plot_bgcolor=colours.grid)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        matrix = self._matrix
        ax = figure.subplots()
        look = {"cmap": "cividis", "vmin": 0, "linewidths": 0.4, "linecolor": colours.paper}
        bar = {"label": "mass", "pad": 0.02}
        sns.heatmap(matrix, ax=ax, cbar_kws=bar, xticklabels=False, yticklabels=False, **look)
        ax.set_facecolor(colours.grid)
        for frames in self._chunks:
            corner = (frames[0], matrix.index.get_loc(frames[0]))
            outline = Rectangle(corner, len(frames), len(frames), fill=False, edgecolor=CURRENT, linewidth=1.6)
            outline.set_clip_on(False)
            ax.add_patch(outline)
        rows, cols = matrix.shape
        step = max(1, cols // 24)
        ax.set_xticks(np.arange(0, cols, step) + 0.5, [str(col) for col in range(0, cols, step)], rotation=0)
        step = max(1, rows // 24)
        ax.set_yticks(np.arange(0, rows, step) + 0.5, matrix.index[::step], rotation=0)
        ax.tick_params(length=0)


class AgeBars(View):
    """Stacked bars of attention mass by age of the key frame, one per head; the symbols below are the heads' roles.

    The table has one row per head: layer, head, role, and the mean mass on each of `fkv.probe.AGES`.

    Args:
        masses: Recorded passes to average over.
        roles: Head roles of the model.

    Raises:
        ValueError: Nothing was recorded.
        RolesError: The roles are for a model of another size.
    """

    def __init__(self, masses: Sequence[PassMass], roles: HeadRoles) -> None:
        table = age_table(masses, roles)
        means = table.groupby("role")[["anchor", "current"]].mean().sum(axis=1)
        near = ", ".join(f"{role} {share:.0%}" for role, share in means[::-1].items())
        super().__init__(
            "mass-by-age",
            "How old are the frames that heads look at",
            f"one bar per head  ·  mean share of near frames (current chunk and the one frame before): {near}",
            table,
            height=440,
            size=(9.2, 4.4),
        )
        near_first = table.assign(near=table.current + table.anchor).sort_values("near", ascending=False)
        self._bars = near_first.reset_index(drop=True)

    def _at(self, role: str) -> np.ndarray:
        """Positions of the bars of a role."""
        return np.flatnonzero(self._bars.role == role)

    def _plotly(self, colours: Palette) -> go.Figure:
        bars = self._bars
        figure = go.Figure()
        for age in reversed(AGES):
            figure.add_bar(
                y=bars[age],
                name=AGE_NAMES[age],
                customdata=bars[["layer", "head"]].to_numpy(),
                marker={
                    "color": AGE_KINDS[age].colour(colours.theme),
                    "line": {"width": 0},
                    "pattern": pattern(AGE_KINDS[age].pattern, colours),
                },
                hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>"
                f"{AGE_NAMES[age]}: %{{y:.1%}}<extra></extra>",
            )
        size = float(np.clip(560 / len(bars), 3, 9))
        for role, colour in ROLE_COLOURS.items():
            at = self._at(role)
            figure.add_scatter(
                x=at,
                y=np.full(len(at), -0.045),
                mode="markers",
                name=f"{role} head",
                hoverinfo="skip",
                cliponaxis=False,
                marker={"symbol": ROLE_SYMBOLS[role], "color": colour, "size": size},
            )
        across = [-0.7, len(bars) - 0.3]
        figure.update_xaxes(title="heads", showticklabels=False, ticks="", showgrid=False, range=across)
        figure.update_yaxes(title="share of attention mass", tickformat=".0%", range=[-0.09, 1], tickvals=list(SHARES))
        return figure.update_layout(barmode="stack", bargap=0.08 if len(bars) < MANY_HEADS else 0)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        bars = self._bars
        few = len(bars) < MANY_HEADS
        ax = figure.subplots()
        bottom = np.zeros(len(bars))
        for age in reversed(AGES):
            kind = AGE_KINDS[age]
            hatch = HATCHES[kind.pattern] if few else None
            look: Look = {"color": kind.colour(colours.theme), "hatch": hatch, "linewidth": 0}
            ax.bar(bars.index, bars[age], bottom=bottom, width=0.92 if few else 1.0, label=AGE_NAMES[age], **look)
            bottom += bars[age].to_numpy()
        size = float(np.clip(1400 / len(bars), 2, 26))
        for role, colour in ROLE_COLOURS.items():
            at = self._at(role)
            marker = MARKERS[ROLE_SYMBOLS[role]]
            ax.scatter(at, np.full(len(at), -0.04), s=size, c=colour, marker=marker, label=f"{role} head")
        ax.set(xlim=(-0.8, len(bars) - 0.2), ylim=(-0.085, 1.0), xticks=[])
        ax.set(xlabel="heads", ylabel="share of attention mass")
        ax.set_yticks(list(SHARES), list(SHARES.values()))
        sns.despine(ax=ax, bottom=True)
        legend_below(figure, ax, columns=6)


def frame_matrix(masses: Sequence[PassMass], layer: int, head: int, name: str = "context") -> pd.DataFrame:
    """Tabulate the mass of one head from every recorded query frame (rows) to every key frame (columns).

    Values are missing where a query could not see the key: it came later, or was no longer cached.

    Args:
        masses: Recorded passes.
        layer: Layer of the head.
        head: Number of the head in its layer.
        name: Which passes to read.

    Raises:
        ValueError: No such pass was recorded, or there is no such head.
    """
    chosen = [mass for mass in masses if mass.name == name]
    if not chosen:
        recorded = ", ".join(dict.fromkeys(mass.name for mass in masses)) or "none"
        raise ValueError(f"no pass {name!r} was recorded; there are {recorded}")
    layers, heads = chosen[0].mass.shape[:2]
    if not (0 <= layer < layers and 0 <= head < heads):
        raise ValueError(f"there is no head {head} in layer {layer}; the record has {layers} layers of {heads} heads")
    keys = range(max(mass.key_frames[-1] for mass in chosen) + 1)
    parts = [pd.DataFrame(mass.mass[layer, head], index=mass.frames, columns=mass.key_frames) for mass in chosen]
    matrix = pd.concat(parts).reindex(columns=keys)
    return matrix.where(matrix > 0).rename_axis("query frame").rename_axis("key frame", axis=1)


def age_table(masses: Sequence[PassMass], roles: HeadRoles) -> pd.DataFrame:
    """Tabulate the mean mass of every head by age of the key frames: layer, head, role, then `fkv.probe.AGES`.

    Raises:
        ValueError: Nothing was recorded.
        RolesError: The roles are for a model of another size.
    """
    if not masses:
        raise ValueError("no attention was recorded")
    shares = np.mean([mass.by_age for mass in masses], 0)
    roles.check(*shares.shape[:2])
    by_age = dict(zip(AGES, shares.reshape(-1, len(AGES)).T, strict=True))
    return role_table(roles).assign(**by_age)
