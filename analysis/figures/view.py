"""The form that all figures share: one table, drawn by Plotly to look at and by matplotlib for files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from .style import Palette, Theme, canvas, drawing, palette

DPI = 160
PLOTLY_CONFIG = {"displaylogo": False, "responsive": True}


class View(ABC):
    """A figure before it is drawn. Notebooks show it as an HTML widget that needs no network.

    A subclass computes its table and its labels in `__init__` and draws them in `_plotly` and `_draw`.
    Tables and axes count chunks from 1, and latent frames, segments, layers and heads from 0.

    Args:
        name: File name without an ending, such as `cache-xray`.
        title: Heading of the figure.
        subtitle: Line below the heading.
        table: The numbers behind both drawings, one row per thing shown.
        height: Height of the Plotly figure in pixels.
        size: Width and height of the matplotlib figure in inches.
    """

    def __init__(
        self, name: str, title: str, subtitle: str, table: pd.DataFrame, height: int, size: tuple[float, float]
    ) -> None:
        self.name = name
        self.title = title
        self.subtitle = subtitle
        self.table = table
        self.height = height
        self.size = size

    @abstractmethod
    def _plotly(self, colours: Palette) -> go.Figure:
        """Draw with Plotly, without title and theme."""

    @abstractmethod
    def _draw(self, figure: Figure, colours: Palette) -> None:
        """Draw onto a matplotlib figure that has its title and theme already."""

    def plotly(self, theme: Theme = "light") -> go.Figure:
        """Return a Plotly figure; it fills the width of the page.

        Raises:
            ValueError: There is no theme of this name.
        """
        figure = self._plotly(palette(theme))
        title = {"text": _as_text(self.title), "subtitle": {"text": _as_text(self.subtitle)}}
        return figure.update_layout(template=f"fkv-{theme}", title=title, height=self.height)

    def matplotlib(self, theme: Theme = "light") -> Figure:
        """Return a matplotlib figure.

        Raises:
            ValueError: There is no theme of this name.
        """
        with drawing(theme) as colours:
            figure = canvas(self.title, self.subtitle, *self.size, colours)
            self._draw(figure, colours)
        return figure

    def to_html(self, theme: Theme = "light") -> str:
        """Return the Plotly figure as an HTML page with plotly.js inside (about 5 MB); it needs no network."""
        return self.plotly(theme).to_html(include_plotlyjs=True, config=PLOTLY_CONFIG)

    def _repr_html_(self) -> str:
        """Return the page of `to_html` in a frame, so that a notebook's scripts and styles do not touch it."""
        style = f"width: 100%; height: {self.height + 20}px; border: 0"
        return f'<iframe title="{escape(self.title)}" style="{style}" srcdoc="{escape(self.to_html())}"></iframe>'

    def save(self, folder: str | Path, theme: Theme = "light") -> list[Path]:
        """Write NAME.png, NAME.svg and NAME.csv into an existing folder and return their paths."""
        png, svg, csv = (Path(folder) / f"{self.name}.{ending}" for ending in ("png", "svg", "csv"))
        figure = self.matplotlib(theme)
        with drawing(theme):
            figure.savefig(png, dpi=DPI)
            figure.savefig(svg, metadata={"Date": None})
        self.table.to_csv(csv, index=False, float_format="%.6g")
        return [png, svg, csv]


def _as_text(text: str) -> str:
    """A text for Plotly, which reads links and tags in it: prompts and names of models are typed by others."""
    return escape(text, quote=False)
