"""The layer x head map: scores in cividis, roles by symbol and colour, and how the scores are spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plotly.subplots import make_subplots

from fkv.roles import HeadRoles

from .style import LINES, MARKERS, ROLE_COLOURS, ROLE_SYMBOLS, Look, Palette, legend_below
from .view import View

# Where the colour bar stands in the Plotly figure, as a share of its width.
COLOUR_BAR = 0.685
BAR_PIXELS = 12
BINS = np.linspace(0, 1, 41)
CENTRES = (BINS[1:] + BINS[:-1]) / 2
TICKS = [0, 0.25, 0.5, 0.75, 1]


class HeadMap(View):
    """Map of scores and roles, with a histogram of the scores beside it where the roles carry scores.

    The table has one row per head: layer, head, role, score (missing where the roles carry none).

    Args:
        roles: Head roles of a model.
        selected: (layer, head) to frame.
    """

    def __init__(self, roles: HeadRoles, selected: tuple[int, int] | None = None) -> None:
        self.roles = roles
        self._selected = selected
        self._scored = roles.scores is not None
        self._cell = float(np.clip(6.0 / max(roles.num_heads, roles.num_layers), 0.14, 0.42))
        width = self._cell * roles.num_heads + (4.4 if self._scored else 1.4)
        height = self._cell * roles.num_layers + 1.75
        super().__init__(
            "head-map",
            f"Head roles of {roles.provenance['model']}" if "model" in roles.provenance else "Head roles",
            _subtitle(roles),
            head_table(roles),
            height=int(np.clip(190 + 28 * roles.num_layers, 380, 1100)),
            size=(max(width, 7.4), max(height, 3.6)),
        )

    def _of(self, role: str) -> pd.DataFrame:
        return self.table[self.table.role == role]

    def _counts(self, role: str) -> np.ndarray:
        """Count the heads of a role in each bin of the scores."""
        return np.histogram(self._of(role).score, BINS)[0]

    def _plotly(self, colours: Palette) -> go.Figure:
        roles = self.roles
        if self._scored:
            figure = make_subplots(1, 2, column_widths=[0.74, 0.26], horizontal_spacing=0.09)
            bar: dict[str, Any] = {
                "x": COLOUR_BAR,
                "thickness": BAR_PIXELS,
                "outlinewidth": 0,
                "len": 1,
                "xpad": 0,
                "ypad": 0,
            }
            bar["tickvals"] = TICKS
            look = {"colorscale": "Cividis", "zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2, "colorbar": bar}
            figure.add_heatmap(z=roles.scores, hoverinfo="skip", row=1, col=1, **look)
        else:
            figure = make_subplots(1, 1)
        size = float(np.clip(170 / max(roles.num_heads, roles.num_layers), 4, 12))
        score = ", score %{customdata[0]:.3f}" if self._scored else ""
        for role, colour in ROLE_COLOURS.items():
            heads = self._of(role)
            figure.add_scatter(
                x=heads["head"],
                y=heads.layer,
                mode="markers",
                name=f"{role} ({len(heads)})",
                legendgroup=role,
                row=1,
                col=1,
                customdata=heads[["score"]],
                marker={
                    "symbol": ROLE_SYMBOLS[role],
                    "color": colour,
                    "size": size,
                    "line": {"color": "white", "width": 1},
                },
                hovertemplate=f"layer %{{y}}, head %{{x}}<br>{role}{score}<extra></extra>",
            )
        if self._selected:
            layer, head = self._selected
            corners = {"x0": head - 0.5, "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5}
            figure.add_shape(type="rect", **corners, line={"color": colours.ink, "width": 3}, row=1, col=1)
        if self._scored:
            self._plotly_histogram(figure, colours)
        place = {"showgrid": False, "row": 1, "col": 1}
        across = [-0.5, roles.num_heads - 0.5]
        down = [roles.num_layers - 0.5, -0.5]
        figure.update_xaxes(title="head", tickvals=_ticks(roles.num_heads), range=across, **place)
        figure.update_yaxes(title="layer", tickvals=_ticks(roles.num_layers), range=down, **place)
        return figure.update_layout(barmode="stack", bargap=0.08, clickmode="event")

    def _plotly_histogram(self, figure: go.Figure, colours: Palette) -> None:
        for role, colour in ROLE_COLOURS.items():
            figure.add_bar(
                x=self._counts(role),
                y=CENTRES,
                orientation="h",
                legendgroup=role,
                showlegend=False,
                row=1,
                col=2,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"%{{x}} {role} heads around %{{y:.2f}}<extra></extra>",
            )
        ends = {
            "xref": "paper",
            "yref": "paper",
            "xsizemode": "pixel",
            "xanchor": COLOUR_BAR,
            "x0": 0,
            "x1": BAR_PIXELS,
        }
        for value, _, dash in score_marks(self.roles):
            line = {"color": colours.ink, "width": 1.4, "dash": dash}
            figure.add_shape(type="line", **ends, y0=value, y1=value, line=line)
        mark_scores(figure, self.roles, colours, col=2)
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

    def _draw(self, figure: Figure, colours: Palette) -> None:
        roles = self.roles
        if self._scored:
            ax, bar, side = figure.subplots(1, 3, width_ratios=[self._cell * roles.num_heads, 0.14, 2.2])
            look = {"cmap": "cividis", "vmin": 0, "vmax": 1, "linewidths": 1, "linecolor": colours.paper}
            sns.heatmap(roles.scores, ax=ax, cbar_ax=bar, xticklabels=False, yticklabels=False, **look)
            bar.set(title="score")
            bar.tick_params(length=0)
            for value, _, dash in score_marks(roles):
                bar.axhline(value, color="white", lw=1.6, ls=LINES[dash])
            self._draw_histogram(side, colours)
        else:
            ax = figure.subplots()
            ax.set(xlim=(0, roles.num_heads), ylim=(roles.num_layers, 0))
        for role, colour in ROLE_COLOURS.items():
            heads = self._of(role)
            ax.scatter(
                heads["head"] + 0.5,
                heads.layer + 0.5,
                s=(self._cell * 25) ** 2,
                marker=MARKERS[ROLE_SYMBOLS[role]],
                c=colour,
                edgecolors="white",
                linewidths=0.7,
                label=f"{role} ({len(heads)})",
                zorder=3,
                clip_on=False,
            )
        if self._selected:
            layer, head = self._selected
            ax.add_patch(Rectangle((head, layer), 1, 1, fill=False, edgecolor=colours.ink, linewidth=2.2, zorder=4))
        ax.set_xticks(np.array(_ticks(roles.num_heads)) + 0.5, _ticks(roles.num_heads), rotation=0)
        ax.set_yticks(np.array(_ticks(roles.num_layers)) + 0.5, _ticks(roles.num_layers), rotation=0)
        ax.set(xlabel="head", ylabel="layer", aspect="equal" if not self._scored else "auto")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        legend_below(figure, ax, columns=2)

    def _draw_histogram(self, ax: Axes, colours: Palette) -> None:
        left = np.zeros(len(CENTRES))
        for role, colour in ROLE_COLOURS.items():
            counts = self._counts(role)
            ax.barh(CENTRES, counts, height=0.022, left=left, color=colour)
            left = left + counts
        draw_score_marks(ax, self.roles, colours)
        ax.set(ylim=(0, 1), xlabel="heads", ylabel="score")
        ax.set_yticks(TICKS)


def head_table(roles: HeadRoles) -> pd.DataFrame:
    """Tabulate heads: one row each with layer, head, role and score (missing where the roles carry none)."""
    scores = np.full((roles.num_layers, roles.num_heads), np.nan) if roles.scores is None else roles.scores
    return role_table(roles).assign(score=scores.reshape(-1))


def role_table(roles: HeadRoles) -> pd.DataFrame:
    """Tabulate roles: one row per head with layer, head and role (static or dynamic)."""
    layer, head = np.indices((roles.num_layers, roles.num_heads)).reshape(2, -1)
    role = np.where(roles.is_static().reshape(-1), "static", "dynamic")
    return pd.DataFrame({"layer": layer, "head": head, "role": role})


def _subtitle(roles: HeadRoles) -> str:
    share = roles.static_share
    parts = [f"{roles.num_layers} layers x {roles.num_heads} heads", f"{share:.1%} static, {1 - share:.1%} dynamic"]
    if roles.scores is not None:
        last = roles.provenance.get("last_k", 4)
        sink = roles.provenance.get("sink", 1)
        parts.append(f"score = mass on the last {last} key frames, {sink} sink frame left out")
    return "  ·  ".join(parts)


def _ticks(count: int) -> list[int]:
    return list(range(0, count, 1 if count <= 12 else 2 if count <= 20 else 5))


def score_marks(roles: HeadRoles) -> list[tuple[float, str, str]]:
    """List the lines that belong on a scale of scores: value, label, dash. Only what the roles' provenance knows."""
    labels = (("threshold", "static from {:g}", "solid"), ("uniform_score", "uniform attention {:.2f}", "dot"))
    known = ((roles.provenance.get(name), label, dash) for name, label, dash in labels)
    return [(value, label.format(value), dash) for value, label, dash in known if isinstance(value, (int, float))]


def mark_scores(figure: go.Figure, roles: HeadRoles, colours: Palette, col: int, uniform_at: str = "right") -> None:
    """Draw `score_marks` across a Plotly panel whose y axis is the score.

    Args:
        figure: The figure to draw on.
        roles: The roles that the scores belong to.
        colours: Colours of the theme.
        col: Column of the panel in the first row.
        uniform_at: Side of the label of uniform attention, `left` or `right`; other labels stand at the right.
    """
    for value, text, dash in score_marks(roles):
        side = uniform_at if dash == "dot" else "right"
        figure.add_hline(
            y=value,
            line={"color": colours.ink, "width": 1.4, "dash": dash},
            row=1,
            col=col,
            annotation={"text": text, "font": {"size": 11}, "xanchor": side, "yanchor": "bottom"},
            annotation_position=f"top {side}",
        )


def draw_score_marks(ax: Axes, roles: HeadRoles, colours: Palette, uniform_at: str = "right") -> None:
    """Draw `score_marks` across a matplotlib panel; arguments as in `mark_scores`."""
    for value, text, dash in score_marks(roles):
        side = uniform_at if dash == "dot" else "right"
        place: Look = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": side, "va": "bottom"}
        ax.axhline(value, color=colours.ink, lw=1.1, ls=LINES[dash])
        ax.annotate(text, (float(side == "right"), value), (4 * (side == "left"), 2), size=8, **place)
