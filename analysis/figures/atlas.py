"""The role atlas: head splits of several models side by side, how far they agree, and the static share over depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from plotly.subplots import make_subplots

from fkv.roles import HeadRoles

from .style import (
    ANCHOR,
    CURRENT,
    DYNAMIC,
    LINES,
    MARKERS,
    PANEL_MARGIN,
    ROLE_COLOURS,
    SINK,
    STATIC,
    Look,
    Palette,
)
from .view import View

# Number of bands of equal depth that the static share is averaged over.
BANDS = 10
# Models per row of the Plotly figure.
PER_ROW = 3


class RoleAtlas(View):
    """Role maps, matrix of agreement, and static share over depth.

    The table has one row per model and layer: model, layer, static heads, static share, which heads.

    Args:
        models: Head roles by model name.
    """

    def __init__(self, models: Mapping[str, HeadRoles]) -> None:
        rows = -(-len(models) // PER_ROW) + 1
        super().__init__(
            "atlas",
            "Role atlas: which heads are static, model by model",
            "layers run down, heads across  ·  models of the same size are compared head by head, the others by depth",
            atlas_table(models),
            height=330 * rows,
            size=(max(9.5, 1.75 * len(models)), 8.6),
        )
        self.models = models
        self._rows = rows
        self._agreement = agreement_matrix(models)

    def _lines(self, colours: Palette) -> Iterator[tuple[str, np.ndarray, np.ndarray, str, str, str]]:
        """Name, depth, static share, colour, dash and symbol of each line over depth."""
        hues = (colours.ink, ANCHOR, SINK, CURRENT, colours.soft, DYNAMIC)
        dashes = tuple(LINES)
        symbols = tuple(MARKERS)
        for i, (name, roles) in enumerate(_distinct(self.models).items()):
            shares = depth_shares(roles)
            depth = (np.arange(len(shares)) + 0.5) / len(shares)
            yield name, depth, shares, hues[i % len(hues)], dashes[i % len(dashes)], symbols[i % len(symbols)]

    def _plotly(self, colours: Palette) -> go.Figure:
        count = len(self.models)
        last = self._rows
        specs: list[Any] = [[{}] * PER_ROW for _ in range(last - 1)] + [[{"colspan": 2}, None, {}]]
        titles = [f"<b>{name}</b>  {roles.static_share:.1%} static" for name, roles in self.models.items()]
        titles += [""] * ((last - 1) * PER_ROW - count)
        titles += ["<b>heads with the same role</b>", "<b>static share over depth</b>"]
        spacing = {"horizontal_spacing": 0.07, "vertical_spacing": 0.09}
        figure = make_subplots(last, PER_ROW, specs=specs, subplot_titles=titles, **spacing)
        for i, (name, roles) in enumerate(self.models.items()):
            row, col = divmod(i, PER_ROW)
            _plotly_roles(figure, name, roles, row + 1, col + 1)
        matrix = self._agreement
        names = list(self.models)
        figure.add_heatmap(
            z=matrix.to_numpy(),
            x=names,
            y=names,
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            showscale=False,
            hoverongaps=False,
            text=matrix.map(lambda share: "" if np.isnan(share) else f"{share:.1%}"),
            texttemplate="%{text}",
            textfont={"color": "black"},  # from a half on, cividis is light
            row=last,
            col=1,
        )
        figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", row=last, col=1)
        figure.update_xaxes(showgrid=False, ticks="", row=last, col=1)
        for name, depth, shares, colour, dash, symbol in self._lines(colours):
            figure.add_scatter(
                x=depth,
                y=shares,
                name=name,
                mode="lines+markers",
                row=last,
                col=3,
                line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 7},
                cliponaxis=False,
                hovertemplate=f"{name}<br>depth %{{x:.0%}}: %{{y:.0%}} static<extra></extra>",
            )
        figure.update_xaxes(title="depth", tickformat=".0%", range=[0, 1], row=last, col=3)
        figure.update_yaxes(tickformat=".0%", range=[0, 1], row=last, col=3)
        for role, colour in ROLE_COLOURS.items():
            marker = {"symbol": "square", "size": 11, "color": colour}
            figure.add_scatter(x=[None], y=[None], mode="markers", name=f"{role} head", marker=marker)
        figure.update_annotations(font={"size": 12, "color": colours.ink})
        return figure.update_layout(legend={"y": -60 / (self.height - 160)}, margin=PANEL_MARGIN)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.0, 1.15])
        upper, lower = halves
        maps = upper.subplots(1, len(self.models), squeeze=False)[0]
        for ax, (name, roles) in zip(maps, self.models.items(), strict=True):
            _draw_roles(ax, name, roles, colours)
        left, right = lower.subplots(1, 2)
        look = {"cmap": "cividis", "vmin": 0, "vmax": 100, "linewidths": 1, "linecolor": colours.paper}
        numbers = {"annot": True, "fmt": ".1f", "annot_kws": {"size": 8}}
        bare = {"cbar": False, "xticklabels": False, "yticklabels": False}
        sns.heatmap(self._agreement * 100, ax=left, **look, **numbers, **bare)
        left.set_title("heads with the same role, %")
        left.tick_params(length=0, labelsize=8)
        middles = np.arange(len(self.models)) + 0.5
        left.set_xticks(middles, self.models, rotation=35, ha="right", rotation_mode="anchor")
        left.set_yticks(middles, self.models)
        for name, depth, shares, colour, dash, symbol in self._lines(colours):
            line = {"color": colour, "ls": LINES[dash], "marker": MARKERS[symbol], "ms": 4, "lw": 1.5}
            right.plot(depth, shares * 100, label=name, **line)
        right.set(xlim=(0, 1), ylim=(0, 100), xlabel="depth, first to last layer", ylabel="static heads, %")
        right.set_title("static share over depth")
        right.legend(fontsize=8, loc="upper right")
        handles = [Patch(color=DYNAMIC, label="dynamic head"), Patch(color=STATIC, label="static head, marked")]
        figure.legend(handles=handles, loc="upper right", ncols=2)


def _plotly_roles(figure: go.Figure, name: str, roles: HeadRoles, row: int, col: int) -> None:
    """Draw the role map of one model into a panel."""
    static = roles.is_static()
    figure.add_heatmap(
        z=static.astype(int),
        colorscale=[(0, DYNAMIC), (1, STATIC)],
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=1,
        ygap=1,
        customdata=np.where(static, "static", "dynamic"),
        row=row,
        col=col,
        hovertemplate=f"{name}<br>layer %{{y}}, head %{{x}}: %{{customdata}}<extra></extra>",
    )
    layers, heads = np.nonzero(static)
    mark = {"symbol": "square", "color": "white", "size": float(np.clip(60 / roles.num_layers, 1.5, 6))}
    quiet = {"hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=heads, y=layers, mode="markers", marker=mark, row=row, col=col, **quiet)
    title = "layer" if col == 1 else None
    ends = [roles.num_layers - 0.5, -0.5]  # the first layer above
    figure.update_yaxes(range=ends, title=title, showgrid=False, row=row, col=col)
    figure.update_xaxes(range=[-0.5, roles.num_heads - 0.5], showgrid=False, row=row, col=col)


def _draw_roles(ax: Axes, name: str, roles: HeadRoles, colours: Palette) -> None:
    """Draw the role map of one model onto axes."""
    static = roles.is_static()
    look: Look = {"cmap": ListedColormap([DYNAMIC, STATIC]), "vmin": 0, "vmax": 1}
    ax.imshow(static, aspect="auto", interpolation="none", **look)
    wide = roles.num_heads - 0.5
    high = roles.num_layers - 0.5
    ax.hlines(np.arange(roles.num_layers + 1) - 0.5, -0.5, wide, color=colours.paper, lw=0.5)
    ax.vlines(np.arange(roles.num_heads + 1) - 0.5, -0.5, high, color=colours.paper, lw=0.5)
    layers, heads = np.nonzero(static)
    size = float(np.clip(60 / roles.num_layers, 1, 6)) ** 2
    ax.scatter(heads, layers, s=size, marker="s", color="white", linewidths=0)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, wide), ylim=(high, -0.5))
    ax.set(xlabel=f"{roles.num_layers} layers, {roles.num_heads} heads")
    ax.set_title(f"{name}\n{roles.static_share:.1%} static", size=8.5)
    sns.despine(ax=ax, left=True, bottom=True)


def agreement_matrix(models: Mapping[str, HeadRoles]) -> pd.DataFrame:
    """Tabulate the share of heads with the same role for each pair; missing where the models differ in size."""

    def agreement(one: HeadRoles, other: HeadRoles) -> float:
        same_size = (one.num_layers, one.num_heads) == (other.num_layers, other.num_heads)
        return one.agreement(other) if same_size else np.nan

    shares = [[agreement(one, other) for other in models.values()] for one in models.values()]
    return pd.DataFrame(shares, list(models), list(models))


def depth_shares(roles: HeadRoles) -> np.ndarray:
    """Average the share of static heads over equal bands of depth, first layers first: [min(BANDS, layers)]."""
    per_layer = roles.is_static().mean(1)
    return np.array([part.mean() for part in np.array_split(per_layer, min(BANDS, len(per_layer)))])


def atlas_table(models: Mapping[str, HeadRoles]) -> pd.DataFrame:
    """Tabulate splits: one row per model and layer with the number and share of static heads, and which they are."""
    rows = [
        (name, layer, len(heads), len(heads) / roles.num_heads, " ".join(map(str, heads)))
        for name, roles in models.items()
        for layer, heads in enumerate(roles.static)
    ]
    return pd.DataFrame(rows, columns=["model", "layer", "static heads", "static share", "which heads"])


def _distinct(models: Mapping[str, HeadRoles]) -> dict[str, HeadRoles]:
    """Join the names of models with the same split, which share one line."""
    joined: dict[str, HeadRoles] = {}
    for name, roles in models.items():
        twin = next((other for other, known in joined.items() if known == roles), None)
        if twin:
            joined[f"{twin} = {name}"] = joined.pop(twin)
        else:
            joined[name] = roles
    return joined
