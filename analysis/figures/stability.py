"""Are roles a property of the head? Its scores over prompts and passes, and how it diverges from itself and from others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from fkv.analysis.profile import Profile

from .heads import draw_score_marks, mark_scores
from .style import ANCHOR, ROLE_COLOURS, ROLE_MARKS, SINK, Theme, canvas, drawing, finish

TITLE = "Are head roles stable?"
SPREADS = {
    "within": ("same head, other prompt or pass", ANCHOR, "solid"),
    "between": ("other head, same prompt and pass", SINK, "dash"),
}


def stability_table(profile: Profile) -> pd.DataFrame:
    """One row per head: role, mean score, lowest and highest score of a sample, divergence within and between heads."""
    samples = profile.scores.reshape(-1, *profile.scores.shape[2:])
    layer, head = np.indices(samples.shape[1:]).reshape(2, -1)
    role = np.where(profile.roles.is_static().reshape(-1), "static", "dynamic")
    columns = {"score": profile.head_scores, "lowest": samples.min(0), "highest": samples.max(0)}
    columns |= {"within": profile.stability.within, "between": profile.stability.between}
    return pd.DataFrame({"layer": layer, "head": head, "role": role, **{k: v.reshape(-1) for k, v in columns.items()}})


def _subtitle(profile: Profile) -> str:
    found, (runs, passes) = profile.stability, profile.scores.shape[:2]
    return (
        f"{runs} runs x {passes} passes  ·  divergence {found.within.mean():.3f} within a head, {found.between.mean():.3f} between heads "
        f"(mean Jensen-Shannon, bits)  ·  one sample alone gives {found.agreement:.0%} of heads their role"
    )


def _ranked(profile: Profile) -> pd.DataFrame:
    return stability_table(profile).sort_values("score", ascending=False, ignore_index=True)


def _bins(table: pd.DataFrame) -> np.ndarray:
    return np.linspace(0, max(table.within.max(), table.between.max()) * 1.02 + 1e-9, 31)


def head_stability(profile: Profile, theme: Theme = "light") -> go.Figure:
    """Left: every head's score with its range over samples. Right: divergence within heads against between heads."""
    table = _ranked(profile)
    figure = make_subplots(1, 2, column_widths=[0.66, 0.34], horizontal_spacing=0.09)
    for role, colour in ROLE_COLOURS.items():
        of = table[table.role == role]
        figure.add_scatter(
            x=of.index,
            y=of.score,
            mode="markers",
            name=f"{role} head",
            row=1,
            col=1,
            marker={"symbol": ROLE_MARKS[role][0], "color": colour, "size": 7},
            error_y={
                "array": of.highest - of.score,
                "arrayminus": of.score - of.lowest,
                "width": 0,
                "thickness": 1.4,
                "color": colour,
            },
            customdata=of[["layer", "head", "lowest", "highest"]],
            hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>"
            "score %{y:.3f}, from %{customdata[2]:.3f} to %{customdata[3]:.3f}<extra></extra>",
        )
    mark_scores(figure, profile.roles, theme, col=1, uniform_at="left")
    edges = _bins(table)
    for kind, (name, colour, dash) in SPREADS.items():
        counts = np.histogram(table[kind], edges)[0]
        figure.add_scatter(
            x=np.repeat(edges, 2)[1:-1],
            y=np.repeat(counts, 2),
            name=name,
            fill="tozeroy",
            mode="lines",
            row=1,
            col=2,
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"{name}<br>divergence %{{x:.3f}}: %{{y}} heads<extra></extra>",
        )
    figure.update_xaxes(
        title="heads, sorted by score",
        showticklabels=False,
        ticks="",
        showgrid=False,
        range=[-1, len(table)],
        row=1,
        col=1,
    )
    figure.update_yaxes(title="score over prompts and passes", range=[0, 1.02], row=1, col=1)
    figure.update_xaxes(title="divergence, bits", rangemode="tozero", row=1, col=2)
    figure.update_yaxes(title="heads", rangemode="tozero", row=1, col=2)
    return finish(figure, TITLE, _subtitle(profile), theme, 440)


def draw_head_stability(profile: Profile, theme: Theme = "light") -> Figure:
    """The same as `head_stability`, for a file."""
    table = _ranked(profile)
    with drawing(theme) as colours:
        figure = canvas(TITLE, _subtitle(profile), 10, 4.3, colours)
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        for role, colour in ROLE_COLOURS.items():
            of = table[table.role == role]
            left.vlines(of.index, of.lowest, of.highest, color=colour, lw=1.5, alpha=0.7)
            left.scatter(of.index, of.score, c=colour, marker=ROLE_MARKS[role][1], s=20, label=f"{role} head", zorder=3)
        draw_score_marks(left, profile.roles, colours, uniform_at="left")
        left.set(
            ylim=(0, 1.02),
            xlim=(-1, len(table)),
            xticks=[],
            xlabel="heads, sorted by score",
            ylabel="score over prompts and passes",
        )
        for kind, (name, colour, dash) in SPREADS.items():
            line = "--" if dash == "dash" else "-"
            look = {"element": "step", "color": colour, "alpha": 0.3, "linewidth": 1.6, "linestyle": line}
            sns.histplot(table[kind], bins=_bins(table), ax=right, label=name, **look)
        right.set(xlabel="divergence, bits", ylabel="heads", xlim=(0, None))
        legends = [ax.get_legend_handles_labels() for ax in (left, right)]
        figure.legend(*(one + other for one, other in zip(*legends)), loc="outside lower left", ncols=4)
    return figure
