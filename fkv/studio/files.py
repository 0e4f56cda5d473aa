"""The text files of the page: templates, scripts, styles."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parents[2] / "assets" / "studio"


def asset(name: str) -> str:
    """A text file of the page."""
    return (ASSETS / name).read_text(encoding="utf-8")
