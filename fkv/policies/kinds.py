"""What pages of the cache are for, as policies say it (`Policy.page_kind`), and the signs by which figures show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

SINK = "sink"
ANCHOR = "anchor"
MOVED = "moved"
RECALLED = "recalled"
KEPT = "kept"
HELD = "held"
CURRENT = "current"
DROPPED = "dropped"


@dataclass(frozen=True)
class PageKind:
    """A purpose of pages and its signs.

    Args:
        key: How records and policies call it.
        letter: One letter for small cells.
        name: Two words at most, for legends.
        light: Colour on light paper, CSS hexadecimal.
        dark: Colour on dark paper, CSS hexadecimal.
        pattern: Hatch in the notation that Plotly and matplotlib share, "" for a plain area.
    """

    key: str
    letter: str
    name: str
    light: str
    dark: str
    pattern: Literal["", "/", "|", ".", "-", "x"] = ""

    def colour(self, theme: str) -> str:
        """The colour of the theme `light` or `dark`."""
        return self.dark if theme == "dark" else self.light


KINDS: dict[str, PageKind] = {
    kind.key: kind
    for kind in (
        PageKind(SINK, "S", "sink", "#cc79a7", "#cc79a7", "/"),
        PageKind(ANCHOR, "A", "anchor frame", "#009e73", "#009e73", "|"),
        PageKind(MOVED, "M", "moved most", "#e69f00", "#e69f00", "."),
        PageKind(RECALLED, "R", "recalled", "#d55e00", "#e8843c", "-"),
        PageKind(KEPT, "K", "kept", "#6b7684", "#8d99a8"),
        PageKind(HELD, "H", "held, not read", "#9fa8b5", "#4d5866", "x"),
        PageKind(CURRENT, "C", "current chunk", "#56b4e9", "#56b4e9"),
        PageKind(DROPPED, "×", "dropped", "#78808c2e", "#a0aab829"),
    )
}


def table() -> list[dict[str, str]]:
    """All kinds in the order of legends, as JSON."""
    return [asdict(kind) for kind in KINDS.values()]
