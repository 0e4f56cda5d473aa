"""The role atlas: head splits of several models side by side, how far they agree, and where in depth static heads sit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from plotly.subplots import make_subplots

from fkv import roles as role_files
from fkv.resources import asset
from fkv.roles import HeadRoles

from .style import (
    ANCHOR,
    CURRENT,
    DASHES,
    DYNAMIC,
    PANEL_MARGIN,
    ROLE_COLOURS,
    SINK,
    STATIC,
    Palette,
    Theme,
    canvas,
    drawing,
    finish,
    palette,
)

FOLDER = asset("head_roles")
TITLE = "Role atlas: which heads are static, model by model"
SUBTITLE = "layers run down, heads across  ·  models of the same size are compared head by head, the others by depth"
LINES, MARKS = ("-", "--", ":", "-.", "-", "--"), "osD^vP"
BANDS = 10


def released() -> dict[str, HeadRoles]:
    """The five splits that were released with the paper, by model name."""
    return {found.provenance["model"]: found for found in map(role_files.load, sorted(FOLDER.glob("*.json")))}


def with_own(own: HeadRoles | None) -> dict[str, HeadRoles]:
    """The released splits and, first, one's own."""
    mine = {f"{own.provenance.get('model', 'this model')} (ours)": own} if own else {}
    return mine | released()


def agreement_matrix(models: Mapping[str, HeadRoles]) -> pd.DataFrame:
    """Share of heads with the same role for each pair; missing where the models differ in size."""

    def agreement(a: HeadRoles, b: HeadRoles) -> float:
        same_size = (a.num_layers, a.num_heads) == (b.num_layers, b.num_heads)
        return a.agreement(b) if same_size else np.nan

    return pd.DataFrame(
        [[agreement(a, b) for b in models.values()] for a in models.values()], list(models), list(models)
    )


def depth_shares(roles: HeadRoles, bands: int = BANDS) -> np.ndarray:
    """Share of static heads in equal bands of depth, first layers first: [min(bands, layers)]."""
    per_layer = roles.is_static().mean(1)
    return np.array([part.mean() for part in np.array_split(per_layer, min(bands, len(per_layer)))])


def atlas_table(models: Mapping[str, HeadRoles]) -> pd.DataFrame:
    """One row per model and layer: number and share of static heads."""
    rows = [
        (name, layer, len(heads), len(heads) / roles.num_heads)
        for name, roles in models.items()
        for layer, heads in enumerate(roles.static)
    ]
    return pd.DataFrame(rows, columns=["model", "layer", "static heads", "static share"])


def _depth(shares: np.ndarray) -> np.ndarray:
    return (np.arange(len(shares)) + 0.5) / len(shares)


def _line_colours(colours: Palette) -> list[str]:
    return [colours.ink, ANCHOR, SINK, CURRENT, colours.soft, DYNAMIC]


def _distinct(models: Mapping[str, HeadRoles]) -> dict[str, HeadRoles]:
    """Models with the same split share one line: names joined."""
    joined: dict[str, HeadRoles] = {}
    for name, roles in models.items():
        twin = next((other for other, known in joined.items() if known == roles), None)
        if twin:
            joined[f"{twin} = {name}"] = joined.pop(twin)
        else:
            joined[name] = roles
    return joined


def role_atlas(models: Mapping[str, HeadRoles], theme: Theme = "light") -> go.Figure:
    """Role maps, agreement matrix and static share over depth, for looking at."""
    names, colours, count = list(models), palette(theme), len(models)
    rows = -(-count // 3)
    specs = [[{}, {}, {}] for _ in range(rows)] + [[{"colspan": 2}, None, {}]]
    titles = [f"<b>{name}</b>  {roles.static_share:.1%} static" for name, roles in models.items()]
    titles += [""] * (rows * 3 - count) + ["<b>agreement</b>", "<b>static share over depth</b>"]
    figure = make_subplots(
        rows + 1, 3, specs=specs, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.09
    )
    for i, (name, roles) in enumerate(models.items()):
        row, col = divmod(i, 3)
        layer, head = np.indices((roles.num_layers, roles.num_heads))
        figure.add_heatmap(
            z=roles.is_static().astype(int),
            colorscale=[(0, DYNAMIC), (1, STATIC)],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1,
            ygap=1,
            customdata=np.where(roles.is_static(), "static", "dynamic"),
            row=row + 1,
            col=col + 1,
            hovertemplate=f"{name}<br>layer %{{y}}, head %{{x}}: %{{customdata}}<extra></extra>",
        )
        at, of = np.nonzero(roles.is_static())
        mark = {"symbol": "square", "color": "white", "size": float(np.clip(60 / roles.num_layers, 1.5, 6))}
        figure.add_scatter(
            x=of, y=at, mode="markers", marker=mark, hoverinfo="skip", showlegend=False, row=row + 1, col=col + 1
        )
        figure.update_yaxes(
            autorange="reversed", title="layer" if col == 0 else None, showgrid=False, row=row + 1, col=col + 1
        )
        figure.update_xaxes(showgrid=False, row=row + 1, col=col + 1)
    matrix = agreement_matrix(models)
    figure.add_heatmap(
        z=matrix.to_numpy(),
        x=names,
        y=names,
        colorscale="Cividis",
        zmin=0.5,
        zmax=1,
        xgap=2,
        ygap=2,
        showscale=False,
        hoverongaps=False,
        text=matrix.map(lambda v: "" if np.isnan(v) else f"{v:.1%}"),
        texttemplate="%{text}",
        row=rows + 1,
        col=1,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", row=rows + 1, col=1)
    figure.update_xaxes(showgrid=False, ticks="", row=rows + 1, col=1)
    for i, ((name, roles), colour) in enumerate(zip(_distinct(models).items(), _line_colours(colours))):
        shares = depth_shares(roles)
        figure.add_scatter(
            x=_depth(shares),
            y=shares,
            name=name,
            mode="lines+markers",
            row=rows + 1,
            col=3,
            line={"color": colour, "dash": DASHES[i % 4], "width": 2},
            marker={"symbol": i, "size": 7},
            hovertemplate=f"{name}<br>depth %{{x:.0%}}: %{{y:.0%}} static<extra></extra>",
        )
    figure.update_xaxes(title="depth", tickformat=".0%", range=[0, 1], row=rows + 1, col=3)
    figure.update_yaxes(tickformat=".0%", range=[0, 1], row=rows + 1, col=3)
    for role, colour in ROLE_COLOURS.items():
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"{role} head",
            marker={"symbol": "square", "size": 11, "color": colour},
        )
    figure.update_annotations(font={"size": 12, "color": colours.ink})
    height = 330 * (rows + 1)
    figure.update_layout(legend={"y": -60 / (height - 160)}, margin=PANEL_MARGIN)
    return finish(figure, TITLE, SUBTITLE, theme, height)


def draw_role_atlas(models: Mapping[str, HeadRoles], theme: Theme = "light") -> Figure:
    """The same as `role_atlas`, for a file."""
    with drawing(theme) as colours:
        figure = canvas(TITLE, SUBTITLE, max(9.5, 1.75 * len(models)), 8.6, colours)
        upper, lower = figure.subfigures(2, 1, height_ratios=[1.0, 1.15])
        for ax, (name, roles) in zip(upper.subplots(1, len(models), squeeze=False)[0], models.items()):
            ax.imshow(
                roles.is_static(),
                cmap=ListedColormap([DYNAMIC, STATIC]),
                vmin=0,
                vmax=1,
                aspect="auto",
                interpolation="none",
            )
            wide, high = roles.num_heads - 0.5, roles.num_layers - 0.5
            ax.hlines(np.arange(roles.num_layers + 1) - 0.5, -0.5, wide, color=colours.paper, lw=0.5)
            ax.vlines(np.arange(roles.num_heads + 1) - 0.5, -0.5, high, color=colours.paper, lw=0.5)
            at, of = np.nonzero(roles.is_static())
            ax.scatter(
                of, at, s=float(np.clip(60 / roles.num_layers, 1, 6)) ** 2, marker="s", color="white", linewidths=0
            )
            ax.set(
                xticks=[],
                yticks=[],
                xlim=(-0.5, wide),
                ylim=(high, -0.5),
                xlabel=f"{roles.num_layers} layers, {roles.num_heads} heads",
            )
            ax.set_title(f"{name}\n{roles.static_share:.1%} static", size=8.5)
            sns.despine(ax=ax, left=True, bottom=True)
        left, right = lower.subplots(1, 2)
        sns.heatmap(
            agreement_matrix(models) * 100,
            ax=left,
            cmap="cividis",
            vmin=50,
            vmax=100,
            annot=True,
            fmt=".1f",
            annot_kws={"size": 8},
            linewidths=1,
            linecolor=colours.paper,
            cbar=False,
            xticklabels=False,
            yticklabels=False,
        )
        left.set_title("heads with the same role, %")
        left.tick_params(length=0, labelsize=8)
        middles = np.arange(len(models)) + 0.5
        left.set_xticks(middles, models, rotation=35, ha="right", rotation_mode="anchor")
        left.set_yticks(middles, models)
        for (label, roles), colour, line, mark in zip(_distinct(models).items(), _line_colours(colours), LINES, MARKS):
            shares = depth_shares(roles)
            right.plot(_depth(shares), shares * 100, color=colour, ls=line, marker=mark, ms=4, lw=1.5, label=label)
        right.set(xlim=(0, 1), ylim=(0, 100), xlabel="depth, first to last layer", ylabel="static heads, %")
        right.set_title("static share over depth")
        right.legend(fontsize=8, loc="upper right")
        figure.legend(
            handles=[Patch(color=DYNAMIC, label="dynamic head"), Patch(color=STATIC, label="static head, marked")],
            loc="upper right",
            ncols=2,
        )
    return figure
