"""Are roles a property of the head? Its scores over prompts and passes, and its divergence from itself and others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from fkv.analysis.profile import Profile

from .heads import draw_score_marks, mark_scores, role_table
from .style import ANCHOR, LINES, MARKERS, ROLE_COLOURS, ROLE_SYMBOLS, SINK, Palette, legend_below
from .view import View

SPREADS = {
    "within": ("same head, other prompt or pass", ANCHOR, "solid"),
    "between": ("other head, same prompt and pass", SINK, "dash"),
}


class HeadStability(View):
    """Left: every head's score with its range over samples. Right: divergence within heads against between heads.

    The table has one row per head: layer, head, role, score, the lowest and highest score of a sample, and the mean
    divergence within and between heads (Jensen-Shannon, bits).

    Args:
        profile: A profile of a model's heads.
    """

    def __init__(self, profile: Profile) -> None:
        table = stability_table(profile)
        stability = profile.stability
        runs, passes = profile.scores.shape[:2]
        within = stability.within.mean()
        between = stability.between.mean()
        subtitle = (
            f"{runs} runs x {passes} passes  ·  divergence {within:.3f} within a head, {between:.3f} between heads "
            f"(mean Jensen-Shannon, bits)  ·  one sample alone gives {stability.agreement:.0%} of heads their role"
        )
        super().__init__("stability", "Are head roles stable?", subtitle, table, height=440, size=(10, 4.3))
        self._roles = profile.roles
        self._ranked = table.sort_values("score", ascending=False, ignore_index=True)
        self._bins = np.linspace(0, table[list(SPREADS)].max().max() * 1.02 + 1e-9, 31)

    def _plotly(self, colours: Palette) -> go.Figure:
        table = self._ranked
        figure = make_subplots(1, 2, column_widths=[0.66, 0.34], horizontal_spacing=0.09)
        for role, colour in ROLE_COLOURS.items():
            heads = table[table.role == role]
            figure.add_scatter(
                x=heads.index,
                y=heads.score,
                mode="markers",
                name=f"{role} head",
                row=1,
                col=1,
                marker={"symbol": ROLE_SYMBOLS[role], "color": colour, "size": 7},
                error_y={
                    "array": heads.highest - heads.score,
                    "arrayminus": heads.score - heads.lowest,
                    "width": 0,
                    "thickness": 1.4,
                    "color": colour,
                },
                customdata=heads[["layer", "head", "lowest", "highest"]],
                hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>"
                "score %{y:.3f}, from %{customdata[2]:.3f} to %{customdata[3]:.3f}<extra></extra>",
            )
        mark_scores(figure, self._roles, colours, col=1, uniform_at="left")
        for kind, (name, colour, dash) in SPREADS.items():
            counts = np.histogram(table[kind], self._bins)[0]
            figure.add_scatter(
                x=np.repeat(self._bins, 2)[1:-1],
                y=np.repeat(counts, 2),
                name=name,
                fill="tozeroy",
                mode="lines",
                row=1,
                col=2,
                line={"color": colour, "dash": dash, "width": 2},
                hovertemplate=f"{name}<br>divergence %{{x:.3f}}: %{{y}} heads<extra></extra>",
            )
        bare = {"showticklabels": False, "ticks": "", "showgrid": False}
        figure.update_xaxes(title="heads, sorted by score", range=[-1, len(table)], row=1, col=1, **bare)
        figure.update_yaxes(title="score over prompts and passes", range=[0, 1.02], row=1, col=1)
        figure.update_xaxes(title="divergence, bits", rangemode="tozero", row=1, col=2)
        return figure.update_yaxes(title="heads", rangemode="tozero", row=1, col=2)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        table = self._ranked
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        for role, colour in ROLE_COLOURS.items():
            heads = table[table.role == role]
            marker = MARKERS[ROLE_SYMBOLS[role]]
            left.vlines(heads.index, heads.lowest, heads.highest, color=colour, lw=1.5, alpha=0.7)
            left.scatter(heads.index, heads.score, c=colour, marker=marker, s=20, label=f"{role} head", zorder=3)
        draw_score_marks(left, self._roles, colours, uniform_at="left")
        left.set(ylim=(0, 1.02), xlim=(-1, len(table)), xticks=[])
        left.set(xlabel="heads, sorted by score", ylabel="score over prompts and passes")
        for kind, (name, colour, dash) in SPREADS.items():
            look = {"element": "step", "color": colour, "alpha": 0.3, "linewidth": 1.6, "linestyle": LINES[dash]}
            sns.histplot(table[kind], bins=self._bins, ax=right, label=name, **look)
        right.set(xlabel="divergence, bits", ylabel="heads", xlim=(0, None))
        legend_below(figure, left, right, columns=4)


def stability_table(profile: Profile) -> pd.DataFrame:
    """Tabulate heads: role, mean score, lowest and highest score of a sample, divergence within and between heads."""
    samples = profile.scores.reshape(-1, *profile.scores.shape[2:])
    columns = {
        "score": profile.head_scores,
        "lowest": samples.min(0),
        "highest": samples.max(0),
        "within": profile.stability.within,
        "between": profile.stability.between,
    }
    return role_table(profile.roles).assign(**{name: values.reshape(-1) for name, values in columns.items()})
