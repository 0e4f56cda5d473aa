"""One colour language for every figure, in a light and a dark theme, for Plotly (to look at) and matplotlib (for files)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import matplotlib
import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from matplotlib.figure import Figure

from fkv.policies.kinds import KINDS

Theme = Literal["light", "dark"]

STATIC, DYNAMIC = "#0072B2", "#E69F00"
SINK, ANCHOR, CURRENT, OLDER = (KINDS[key].light for key in ("sink", "anchor", "current", "kept"))
ROLE_COLOURS = {"static": STATIC, "dynamic": DYNAMIC}
ROLE_MARKS = {"static": ("square", "s"), "dynamic": ("circle", "o")}
"""Marks of the roles, for Plotly and for matplotlib."""
AGE_COLOURS = {"sink": SINK, "older": OLDER, "anchor": ANCHOR, "current": CURRENT}
AGE_HATCHES = {"sink": "xx", "older": "", "anchor": "\\\\\\", "current": ".."}
PLOTLY_HATCHES = {"sink": "x", "older": "", "anchor": "\\", "current": "."}
PANEL_MARGIN = {"t": 104}
"""Top margin of Plotly figures whose panels have titles of their own."""
DASHES = ("solid", "dash", "dot", "dashdot")
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Palette:
    """What a theme adds to the colours of roles and ages."""

    paper: str
    ink: str
    soft: str
    grid: str
    dropped: str


PALETTES: dict[str, Palette] = {
    "light": Palette("#ffffff", "#1b2330", "#5b6675", "#e3e7ed", "#d3d6da"),
    "dark": Palette("#10151d", "#e8edf4", "#98a4b3", "#273040", "#3d434c"),
}
"""`dropped` is grey at 35 % over the theme's paper."""


def palette(theme: Theme) -> Palette:
    """The colours of a theme. Raises ValueError for an unknown one."""
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
            "colorway": [STATIC, DYNAMIC, ANCHOR, SINK, CURRENT],
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


def finish(
    figure: go.Figure, title: str, subtitle: str, theme: Theme, height: int, width: int | None = None
) -> go.Figure:
    """Title, theme and size of a Plotly figure; without a width it fills the page."""
    palette(theme)
    return figure.update_layout(
        template=f"fkv-{theme}", title={"text": title, "subtitle": {"text": subtitle}}, height=height, width=width
    )


def pattern(shape: str, theme: Theme) -> dict[str, object]:
    """A light hatch over a bar's own colour, so that colour is never the only sign."""
    return {
        "shape": shape,
        "fgcolor": palette(theme).paper,
        "fgopacity": 0.5,
        "size": 6,
        "solidity": 0.18,
        "fillmode": "overlay",
    }


@contextmanager
def drawing(theme: Theme) -> Iterator[Palette]:
    """matplotlib and seaborn in a theme while the block runs."""
    colours = palette(theme)
    style = {
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
    """An empty matplotlib figure of this size in inches with a title and a line below it."""
    figure = Figure(figsize=(width, height))
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.62 / height))
    figure.text(0.012, 1 - 0.14 / height, title, ha="left", va="top", size=13, weight="bold", color=colours.ink)
    figure.text(0.012, 1 - 0.40 / height, subtitle, ha="left", va="top", size=9, color=colours.soft)
    return figure
