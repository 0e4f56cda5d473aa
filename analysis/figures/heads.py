"""The layer x head map: scores in cividis, roles by mark and colour, and how the scores are spread."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from fkv.roles import HeadRoles

from .style import ROLE_COLOURS, ROLE_MARKS, Palette, Theme, canvas, drawing, finish, palette

COLOUR_BAR = 0.685
SCORE_MAP = "Cividis"
BINS = np.linspace(0, 1, 41)
TICKS = [0, 0.25, 0.5, 0.75, 1]


def head_table(roles: HeadRoles) -> pd.DataFrame:
    """One row per head: layer, head, role, score (missing where the roles carry none)."""
    layer, head = np.indices((roles.num_layers, roles.num_heads)).reshape(2, -1)
    scores = np.full(layer.shape, np.nan) if roles.scores is None else roles.scores.reshape(-1)
    role = np.where(roles.is_static().reshape(-1), "static", "dynamic")
    return pd.DataFrame({"layer": layer, "head": head, "role": role, "score": scores})


def _subtitle(roles: HeadRoles) -> str:
    share, known = roles.static_share, roles.provenance
    parts = [f"{roles.num_layers} layers x {roles.num_heads} heads", f"{share:.1%} static, {1 - share:.1%} dynamic"]
    if roles.scores is not None:
        parts.append(
            f"score = mass on the last {known.get('last_k', 4)} key frames, {known.get('sink', 1)} sink frame left out"
        )
    return "  ·  ".join(parts)


def _title(roles: HeadRoles) -> str:
    return f"Head roles of {roles.provenance['model']}" if "model" in roles.provenance else "Head roles"


def _ticks(count: int) -> list[int]:
    return list(range(0, count, 1 if count <= 12 else 2 if count <= 20 else 5))


def head_map(roles: HeadRoles, theme: Theme = "light", selected: tuple[int, int] | None = None) -> go.Figure:
    """Map of scores and roles with a histogram of the scores beside it; `selected` (layer, head) is framed."""
    table, colours = head_table(roles), palette(theme)
    scored = roles.scores is not None
    figure = make_subplots(1, 2, column_widths=[0.74, 0.26], horizontal_spacing=0.09) if scored else make_subplots(1, 1)
    if scored:
        figure.add_heatmap(
            z=roles.scores,
            colorscale=SCORE_MAP,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            row=1,
            col=1,
            colorbar={"x": COLOUR_BAR, "thickness": 12, "outlinewidth": 0, "len": 1, "ypad": 0, "tickvals": TICKS},
        )
    size = float(np.clip(170 / max(roles.num_heads, roles.num_layers), 4, 12))
    for role, colour in ROLE_COLOURS.items():
        of = table[table.role == role]
        figure.add_scatter(
            x=of["head"],
            y=of.layer,
            mode="markers",
            name=f"{role} ({len(of)})",
            legendgroup=role,
            row=1,
            col=1,
            customdata=of[["score"]],
            marker={
                "symbol": ROLE_MARKS[role][0],
                "color": colour,
                "size": size,
                "line": {"color": "white", "width": 1},
            },
            hovertemplate=f"layer %{{y}}, head %{{x}}<br>{role}"
            + (", score %{customdata[0]:.3f}" if scored else "")
            + "<extra></extra>",
        )
    if selected:
        layer, head = selected
        figure.add_shape(
            type="rect",
            x0=head - 0.5,
            x1=head + 0.5,
            y0=layer - 0.5,
            y1=layer + 0.5,
            line={"color": colours.ink, "width": 3},
            row=1,
            col=1,
        )
    if scored:
        _histogram(figure, roles, table, theme)
    figure.update_xaxes(
        title="head",
        tickvals=_ticks(roles.num_heads),
        range=[-0.5, roles.num_heads - 0.5],
        showgrid=False,
        row=1,
        col=1,
    )
    figure.update_yaxes(
        title="layer",
        tickvals=_ticks(roles.num_layers),
        range=[roles.num_layers - 0.5, -0.5],
        showgrid=False,
        row=1,
        col=1,
    )
    figure.update_layout(barmode="stack", bargap=0.08, clickmode="event")
    return finish(figure, _title(roles), _subtitle(roles), theme, int(np.clip(190 + 28 * roles.num_layers, 380, 1100)))


def _histogram(figure: go.Figure, roles: HeadRoles, table: pd.DataFrame, theme: Theme) -> None:
    colours, centres = palette(theme), (BINS[1:] + BINS[:-1]) / 2
    for role, colour in ROLE_COLOURS.items():
        counts = np.histogram(table.score[table.role == role], BINS)[0]
        figure.add_bar(
            x=counts,
            y=centres,
            orientation="h",
            legendgroup=role,
            showlegend=False,
            row=1,
            col=2,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"%{{x}} {role} heads around %{{y:.2f}}<extra></extra>",
        )
    for value, _, dash in score_marks(roles):
        line = {"color": colours.ink, "width": 1.4, "dash": dash}
        figure.add_shape(
            type="line",
            xref="paper",
            yref="paper",
            x0=COLOUR_BAR - 0.003,
            x1=COLOUR_BAR + 0.018,
            y0=value,
            y1=value,
            line=line,
        )
    mark_scores(figure, roles, theme, col=2)
    figure.update_yaxes(
        range=[0, 1],
        tickvals=TICKS,
        showticklabels=False,
        title={"text": "score", "standoff": 0},
        showgrid=False,
        row=1,
        col=2,
    )
    figure.update_xaxes(title="heads", row=1, col=2)


def score_marks(roles: HeadRoles) -> list[tuple[float, str, str]]:
    """Lines that belong on a scale of scores: value, label, dash. None for what the roles' provenance does not say."""
    labels = (("threshold", "static from {:g}", "solid"), ("uniform_score", "uniform attention {:.2f}", "dot"))
    known = ((roles.provenance.get(name), label, dash) for name, label, dash in labels)
    return [(value, label.format(value), dash) for value, label, dash in known if isinstance(value, (int, float))]


def mark_scores(figure: go.Figure, roles: HeadRoles, theme: Theme, col: int, uniform_at: str = "right") -> None:
    """Draw `score_marks` across a panel of the figure's first row whose y axis is the score; labels stand at the right but for
    that of uniform attention, which may stand at the left."""
    for value, text, dash in score_marks(roles):
        side = uniform_at if dash == "dot" else "right"
        figure.add_hline(
            y=value,
            line={"color": palette(theme).ink, "width": 1.4, "dash": dash},
            row=1,
            col=col,
            annotation={"text": text, "font": {"size": 11}, "xanchor": side, "yanchor": "bottom"},
            annotation_position=f"top {side}",
        )


def draw_score_marks(ax: Axes, roles: HeadRoles, colours: Palette, uniform_at: str = "right") -> None:
    """The same as `mark_scores`, for a file."""
    for value, text, dash in score_marks(roles):
        side = uniform_at if dash == "dot" else "right"
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": side, "va": "bottom"}
        ax.axhline(value, color=colours.ink, lw=1.1, ls="-" if dash == "solid" else ":")
        ax.annotate(text, (float(side == "right"), value), (4 * (side == "left"), 2), size=8, **place)


def draw_head_map(roles: HeadRoles, theme: Theme = "light") -> Figure:
    """The same as `head_map`, for a file."""
    table, scored = head_table(roles), roles.scores is not None
    cell = float(np.clip(6.0 / max(roles.num_heads, roles.num_layers), 0.14, 0.42))
    width, height = cell * roles.num_heads + (4.4 if scored else 1.4), cell * roles.num_layers + 1.75
    with drawing(theme) as colours:
        figure = canvas(_title(roles), _subtitle(roles), max(width, 7.4), max(height, 3.6), colours)
        if scored:
            ax, bar, side = figure.subplots(1, 3, width_ratios=[cell * roles.num_heads, 0.14, 2.2])
            sns.heatmap(
                roles.scores,
                ax=ax,
                cmap="cividis",
                vmin=0,
                vmax=1,
                linewidths=1,
                linecolor=colours.paper,
                cbar_ax=bar,
                xticklabels=False,
                yticklabels=False,
            )
            bar.set(title="score")
            bar.tick_params(length=0)
            for value, _, dash in score_marks(roles):
                bar.axhline(value, color="white", lw=1.6, ls="-" if dash == "solid" else ":")
            _draw_histogram(side, roles, table, colours)
        else:
            ax = figure.subplots()
            ax.set(xlim=(0, roles.num_heads), ylim=(roles.num_layers, 0))
        for role, colour in ROLE_COLOURS.items():
            of = table[table.role == role]
            ax.scatter(
                of["head"] + 0.5,
                of.layer + 0.5,
                s=(cell * 25) ** 2,
                marker=ROLE_MARKS[role][1],
                c=colour,
                edgecolors="white",
                linewidths=0.7,
                label=f"{role} ({len(of)})",
                zorder=3,
                clip_on=False,
            )
        ax.set_xticks(np.array(_ticks(roles.num_heads)) + 0.5, _ticks(roles.num_heads), rotation=0)
        ax.set_yticks(np.array(_ticks(roles.num_layers)) + 0.5, _ticks(roles.num_layers), rotation=0)
        ax.set(xlabel="head", ylabel="layer", aspect="equal" if not scored else "auto")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def _draw_histogram(ax: Axes, roles: HeadRoles, table: pd.DataFrame, colours: Palette) -> None:
    left = np.zeros(len(BINS) - 1)
    for role, colour in ROLE_COLOURS.items():
        counts = np.histogram(table.score[table.role == role], BINS)[0]
        ax.barh((BINS[1:] + BINS[:-1]) / 2, counts, height=0.022, left=left, color=colour)
        left = left + counts
    draw_score_marks(ax, roles, colours)
    ax.set(ylim=(0, 1), xlabel="heads", ylabel="score")
    ax.set_yticks(TICKS)
