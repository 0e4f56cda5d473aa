"""One measure of many cache rules, with intervals over prompts."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from .style import DYNAMIC, STATIC, Look, Palette
from .view import View

ROW = 0.28  # inches per rule


class Board(View):
    """Rules down, best first; the measure across, with its 95 % interval over prompts; a dotted line is the reference.

    The table has one row per rule: policy, mean, low, high; the bounds are missing where there are too few prompts.

    Args:
        rows: One row per rule with those columns, in their order.
        measure: Title of the measure.
        board: Name of the board.
        reference: The policy that the line shows.
    """

    def __init__(self, rows: pd.DataFrame, measure: str, board: str, reference: str = "full") -> None:
        table = rows[["policy", "mean", "low", "high"]].reset_index(drop=True)
        bars = "bars: 95 % interval over prompts" if table["low"].notna().any() else "too few prompts for intervals"
        subtitle = f"{board} · {bars} · dotted: {reference}"
        inches = 1.6 + ROW * len(table)
        super().__init__("board", measure, subtitle, table, round(96 * inches), (7.6, inches))
        self._measure = measure
        line = table.loc[table["policy"] == reference, "mean"]
        self._reference = float(line.iloc[0]) if len(line) else None

    def _errors(self) -> tuple[pd.Series, pd.Series]:
        """Lengths of the bars to the left and to the right of the mean."""
        table = self.table.astype({"mean": float, "low": float, "high": float})
        return (table["mean"] - table["low"]).fillna(0), (table["high"] - table["mean"]).fillna(0)

    def _plotly(self, colours: Palette) -> go.Figure:
        left, right = self._errors()
        figure = go.Figure()
        figure.add_scatter(
            x=self.table["mean"],
            y=self.table["policy"],
            mode="markers",
            marker={"size": 9, "color": STATIC},
            error_x={"array": right, "arrayminus": left, "thickness": 1.2, "color": STATIC},
            hovertemplate="%{y}<br>%{x:.4g}<extra></extra>",
        )
        if self._reference is not None:
            figure.add_vline(x=self._reference, line={"color": DYNAMIC, "dash": "dot", "width": 1.5})
        figure.update_xaxes(title=self._measure, gridcolor=colours.grid)
        figure.update_yaxes(autorange="reversed")
        return figure.update_layout(showlegend=False)

    def _draw(self, figure: Figure, colours: Palette) -> None:
        ax = figure.subplots()
        if self._reference is not None:
            ax.axvline(self._reference, color=DYNAMIC, ls=":", lw=1.2)
        places = range(len(self.table))
        look: Look = {"color": STATIC, "markersize": 5, "elinewidth": 1, "capsize": 2}
        ax.errorbar(self.table["mean"], places, xerr=self._errors(), fmt="o", **look)
        ax.set(xlabel=self._measure, yticks=list(places), ylim=(len(self.table) - 0.5, -0.5))
        ax.set_yticklabels(self.table["policy"], fontsize="small")
        ax.grid(axis="x", color=colours.grid, lw=0.6)
