"""One language of colours, symbols and patterns for every figure, in a light and a dark theme.

Figures are described in Plotly's words; `MARKERS`, `LINES` and `HATCHES` are matplotlib's words for the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fkv.policies.kinds import KINDS

Theme = Literal["light", "dark"]
# Keyword arguments of a drawing function.
Look = dict[str, Any]

STATIC = "#0072B2"
DYNAMIC = "#E69F00"
SINK = KINDS["sink"].light
ANCHOR = KINDS["anchor"].light
CURRENT = KINDS["current"].light
# Colours of series that have no meaning of their own, in order.
SERIES = (STATIC, DYNAMIC, ANCHOR, SINK, CURRENT)

ROLE_COLOURS = {"static": STATIC, "dynamic": DYNAMIC}
ROLE_SYMBOLS = {"static": "square", "dynamic": "circle"}

MARKERS = {"circle": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X", "triangle-up": "^"}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
HATCHES = {"": "", "x": "xx", "/": "///", "\\": "\\\\\\", ".": "..", "|": "||", "-": "--"}

# Top margin of Plotly figures whose panels have titles.
PANEL_MARGIN = {"t": 104}
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Palette:
    """The neutral colours of a theme. `dropped` is grey at 35 % over the paper."""

    theme: Theme
    paper: str
    ink: str
    soft: str
    grid: str
    dropped: str


PALETTES: dict[str, Palette] = {
    "light": Palette("light", "#ffffff", "#1b2330", "#5b6675", "#e3e7ed", "#d3d6da"),
    "dark": Palette("dark", "#10151d", "#e8edf4", "#98a4b3", "#273040", "#3d434c"),
}


def palette(theme: Theme) -> Palette:
    """Return the colours of a theme.

    Raises:
        ValueError: There is no theme of this name.
    """
    if theme not in PALETTES:
        raise ValueError(f"there is no theme {theme!r}; there are {' and '.join(PALETTES)}")
    return PALETTES[theme]


def _template(colours: Palette) -> go.layout.Template:
    axis = {
        "gridcolor": colours.grid,
        "zeroline": False,
        "linecolor": colours.grid,
        "ticks": "outside",
        "tickcolor": colours.grid,
        "ticklen": 4,
        "title": {"font": {"size": 13}, "standoff": 8},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": colours.paper,
            "plot_bgcolor": colours.paper,
            "colorway": list(SERIES),
            "font": {"family": FONT, "size": 12, "color": colours.ink},
            "xaxis": axis,
            "yaxis": axis,
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "font": {"size": 17},
                "subtitle": {"font": {"size": 12, "color": colours.soft}},
            },
            "legend": {"orientation": "h", "y": -0.14, "yanchor": "top", "x": 0},
            "hoverlabel": {"font": {"family": FONT}},
            "margin": {"l": 64, "r": 24, "t": 76, "b": 56},
        }
    )


for _name, _colours in PALETTES.items():
    pio.templates[f"fkv-{_name}"] = _template(_colours)


def pattern(shape: str, colours: Palette) -> Look:
    """Describe a light hatch over a Plotly bar, so that colour is never the only sign."""
    return {
        "shape": shape,
        "fgcolor": colours.paper,
        "fgopacity": 0.5,
        "size": 6,
        "solidity": 0.18,
        "fillmode": "overlay",
    }


@contextmanager
def drawing(theme: Theme) -> Iterator[Palette]:
    """Set matplotlib and seaborn to a theme while the block runs."""
    colours = palette(theme)
    style: dict[Any, Any] = {
        "figure.facecolor": colours.paper,
        "axes.facecolor": colours.paper,
        "savefig.facecolor": colours.paper,
        "text.color": colours.ink,
        "axes.labelcolor": colours.ink,
        "axes.titlecolor": colours.ink,
        "axes.edgecolor": colours.grid,
        "xtick.color": colours.soft,
        "ytick.color": colours.soft,
        "grid.color": colours.grid,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.6,
        "hatch.color": colours.paper,
        "svg.hashsalt": "fkv",
        "svg.fonttype": "none",
        "figure.constrained_layout.use": True,
    }
    with sns.axes_style("ticks"), matplotlib.rc_context(style):
        yield colours


def canvas(title: str, subtitle: str, width: float, height: float, colours: Palette) -> Figure:
    """Return an empty matplotlib figure of this size in inches with a title and a line below it."""
    below = ConstrainedLayoutEngine(rect=(0.012, 0, 0.976, 1 - 0.62 / height))
    figure = Figure(figsize=(width, height), layout=below)
    figure.text(
        0.012,
        1 - 0.14 / height,
        title,
        ha="left",
        va="top",
        size=13,
        weight="bold",
        color=colours.ink,
        parse_math=False,
    )
    figure.text(0.012, 1 - 0.40 / height, subtitle, ha="left", va="top", size=9, color=colours.soft, parse_math=False)
    return figure


def legend_below(figure: Figure, *axes: Axes, columns: int) -> None:
    """Add one legend under the figure with the entries of all these axes."""
    entries = [entry for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*entries, strict=True), loc="outside lower left", ncols=columns)
